"""Layers of the silo's frame: who calls, whether it may, how often, how many streams, and whether the silo drains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from google.protobuf.message import Message

from sealign.app.ending import Ending
from sealign.app.frame import Call, Layer
from sealign.errors import NotPermittedError, OverloadedError, UnavailableError
from sealign.protocol.v1.alignment_pb2 import (
    AlignEncryptedRequest,
    AlignRequest,
    DescribeSpaceRequest,
    RegisterMapRequest,
    SharedExamplesRequest,
)
from sealign.protocol.v1.classification_pb2 import ClassifyRequest, DescribeTasksRequest
from sealign.protocol.v1.generation_pb2 import DescribeGenerationRequest, FetchTokenizerRequest, NextTokenRequest
from sealign_server.access import ANONYMOUS, AlignMode, Identities, Policies, Rates, Tier

_STREAM_OF_QUERIES = "ClassifyStream"
_MODES: Mapping[str, AlignMode] = MappingProxyType({"Align": AlignMode.PLAIN, "AlignEncrypted": AlignMode.ENCRYPTED})


class IdentityLayer(Layer):
    """Names the caller by its certificate or token, for as long as these are valid.

    Args:
        identities: that are known.
    """

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def on_begin(self, call: Call) -> None:
        """Set the call's identity."""
        peer = self._identities.peer_of(call.context)
        if peer.is_proxy:
            call.proxy = peer.name
            call.note(proxy=peer.name)
        else:
            call.identity = peer.name  # a refusal is recorded under it
        call.identity, call.credential = self._identities.of(peer, call.context.invocation_metadata() or ())

    def on_request(self, call: Call, message: Message) -> None:
        """Refuse further messages of a stream whose caller, or the proxy before it, was revoked."""
        del message
        self._identities.require_valid(call.identity, call.credential)
        if call.proxy:
            self._identities.require_valid(call.proxy, "")


class PolicyLayer(Layer):
    """Refuses calls and messages that their identity's tier does not allow.

    Args:
        policies: the policy in force.
        base_of: function that returns the public set that shared examples have joined to make one of a space; None
            for others.
    """

    def __init__(self, policies: Policies, base_of: Callable[[str, str], str | None]) -> None:
        self._policies = policies
        self._base_of = base_of

    def on_begin(self, call: Call) -> None:
        """Let calls pass that the tier allows with some content."""
        tier = self._policies.current.tier_of(call.identity)
        mode = _MODES.get(call.method)
        if mode is not None:
            self._check(call, mode in tier.align, f"align in mode {mode.value}")
        elif call.method == "RegisterMap":
            self._check(call, tier.register_maps, "register maps")
        elif call.method == "SharedExamples":
            self._check(call, tier.shared_examples, "read shared examples")

    def on_request(self, call: Call, message: Message) -> None:
        """Let messages pass about tasks, spaces and public sets that the tier allows."""
        tier = self._policies.current.tier_of(call.identity)
        if isinstance(message, AlignRequest | AlignEncryptedRequest):
            if message.WhichOneof("part") == "header":
                header = message.header if isinstance(message, AlignRequest) else message.header.alignment
                self._check_space(call, tier, header.space, header.public_set)
        elif isinstance(message, RegisterMapRequest):
            self._check_space(call, tier, message.space, message.public_set)
        elif isinstance(message, DescribeSpaceRequest):
            self._check_space(call, tier, message.space)
        elif isinstance(message, ClassifyRequest | DescribeTasksRequest | SharedExamplesRequest):
            everything = isinstance(message, DescribeTasksRequest) and not message.HasField("task")
            self._check(call, everything or tier.allows_task(message.task), f"use task {message.task[:64]!r}")
        elif isinstance(message, NextTokenRequest | DescribeGenerationRequest | FetchTokenizerRequest):
            self._check(call, tier.allows_generation(message.task), f"use generation task {message.task[:64]!r}")

    def _check_space(self, call: Call, tier: Tier, space: str, public_set: str = "") -> None:
        self._check(call, tier.allows_space(space), f"use space {space[:64]!r}")
        if public_set and not tier.allows_public_set(public_set):
            base = self._base_of(space, public_set)
            allowed = base is not None and tier.allows_public_set(base)
            self._check(call, allowed, f"align over public set {public_set[:12]!r}")

    @staticmethod
    def _check(call: Call, allowed: bool, deed: str) -> None:
        if allowed:
            return
        if call.identity == ANONYMOUS:
            raise NotPermittedError(
                f"a caller without a certificate or token may not {deed}: it may query and nothing else. Give a client "
                "certificate (--tls-cert, --tls-key) or a token, or use a map that the silo's operator has made for "
                "your encoder."
            )
        raise NotPermittedError(f"this identity may not {deed} at this silo. Ask its operator to change the policy.")


class RateLayer(Layer):
    """Limits how often an identity calls; in a stream of queries, how often it queries.

    Args:
        rates: count the requests.
    """

    def __init__(self, rates: Rates) -> None:
        self._rates = rates

    def on_begin(self, call: Call) -> None:
        """Count the call, unless its messages are counted."""
        if call.method != _STREAM_OF_QUERIES:
            self._rates.take(call.identity)

    def on_request(self, call: Call, message: Message) -> None:
        """Count a query of a stream."""
        del message
        if call.method == _STREAM_OF_QUERIES:
            self._rates.take(call.identity)


class StreamsLayer(Layer):
    """Limits the streams that one identity holds open.

    Args:
        methods: that are streams.
        most: open at once.
    """

    def __init__(self, methods: Collection[str], most: int) -> None:
        self._methods = frozenset(methods)
        self._most = most
        self._open: Counter[str] = Counter()

    def on_begin(self, call: Call) -> None:
        """Count a stream that opens."""
        if call.method not in self._methods:
            return
        if self._open[call.identity] >= self._most:
            raise OverloadedError(
                f"this client has {self._most} streams open, which is all the silo allows; close some", retry_after=1.0
            )
        self._open[call.identity] += 1

    def on_end(self, call: Call, ending: Ending) -> None:
        """Count a stream that is closed."""
        del ending
        if call.method in self._methods:
            self._open[call.identity] -= 1
            if not self._open[call.identity]:
                del self._open[call.identity]


class DrainLayer(Layer):
    """Turns calls away once the silo is about to stop; those under way go on."""

    def __init__(self) -> None:
        self.is_closed = False

    def on_begin(self, call: Call) -> None:
        """Let calls pass until the silo is closed."""
        del call
        if self.is_closed:
            raise UnavailableError("the silo is shutting down; connect again and retry", retry_after=0.1)
