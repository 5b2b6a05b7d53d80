"""Layers of the silo's frame: who calls, whether it may, how many streams, whether the silo still takes calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from google.protobuf.message import Message

from sealign.app.frame import Call, Layer
from sealign.errors import OverloadedError, UnavailableError
from sealign_server.access import Identities, Permissions


class IdentityLayer(Layer):
    """Names the caller by its certificate or token, for as long as these are valid.

    Args:
        identities: that are known.
    """

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Set the call's identity."""
        context = call.context
        found = self._identities.of(context.auth_context(), context.invocation_metadata() or ())
        call.identity, call.credential = found
        yield

    def on_request(self, call: Call, message: Message) -> None:
        """Refuse further messages of a stream whose caller was revoked."""
        del message
        self._identities.require_valid(call.identity, call.credential)


class PolicyLayer(Layer):
    """Refuses calls that their identity may not make.

    Args:
        permissions: what callers may do.
    """

    def __init__(self, permissions: Permissions) -> None:
        self._permissions = permissions

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Let permitted calls pass."""
        self._permissions.require(call.identity, call.method)
        yield


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

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Count a stream while it is open."""
        if call.method not in self._methods:
            yield
            return
        if self._open[call.identity] >= self._most:
            raise OverloadedError(
                f"this client has {self._most} streams open, which is all the silo allows; close some", retry_after=1.0
            )
        self._open[call.identity] += 1
        try:
            yield
        finally:
            self._open[call.identity] -= 1
            if not self._open[call.identity]:
                del self._open[call.identity]


class DrainLayer(Layer):
    """Turns calls away once the silo is about to stop; those under way go on."""

    def __init__(self) -> None:
        self.is_closed = False

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Let calls pass until the silo is closed."""
        del call
        if self.is_closed:
            raise UnavailableError("the silo is shutting down; connect again and retry", retry_after=0.1)
        yield
