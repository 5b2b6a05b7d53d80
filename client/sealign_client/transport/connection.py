"""The TLS channel to a silo, and the errors that its failed calls stand for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from sealign.app.addresses import parse_address, proxy_variable
from sealign.app.tls import load_authorities, load_identity
from sealign.errors import InvalidInputError, UntrustedCardError
from sealign.protocol import SiloCard
from sealign.protocol.conversions.silo import key_changes_from_wire, silo_from_wire
from sealign.protocol.signing import KeyChange, is_card_signed
from sealign.protocol.status import error_of
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloStub
from sealign_client.endpoint import Endpoint
from sealign_client.transport.traces import Traces

MAX_MESSAGE_BYTES = 32 << 20
LONG_SECONDS = 3600.0
"""Deadline of calls during which the silo learns a map or encodes a vocabulary."""

KEEPALIVE = (
    # Silos allow a ping every 10 s, so that this interval never counts as too many, whatever the clocks do.
    ("grpc.keepalive_time_ms", 20_000),
    # Also how long data may stay unacknowledged (TCP_USER_TIMEOUT): a dead peer is found within 5 s of a request.
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

_Reply = TypeVar("_Reply")
_Card = TypeVar("_Card", bound=Message)


class Trust(Protocol):
    """Which signing key of the silo this client trusts."""

    def require(self, key: bytes, changes: Sequence[KeyChange]) -> None:
        """Accept the silo's present key, or raise `UntrustedCardError`."""


def credentials_of(endpoint: Endpoint) -> grpc.ChannelCredentials:
    """Read the certificates of an endpoint, and see that its token can be sent. gRPC sends it inside TLS alone.

    Raises:
        InvalidInputError, AuthenticationError: files of certificates, or of a token, that cannot work.
    """
    tls = _tls_of(endpoint)
    if endpoint.token is None:
        return tls
    read_token(endpoint.token)
    return grpc.composite_channel_credentials(tls, grpc.metadata_call_credentials(_Token(endpoint.token)))


def read_token(token: str | Path) -> str:
    """Return a token, or what a file holds.

    Raises:
        InvalidInputError: the file cannot be read, or there is no token in it.
    """
    try:
        text = token if isinstance(token, str) else token.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InvalidInputError(f"Could not read the token file {token}: {error.strerror}.") from error
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        place = "silo_token" if isinstance(token, str) else f"the file {token}"
        raise InvalidInputError(f"There is no token in {place}. Write there what `identity add` printed at the silo.")
    return text


class _Token(grpc.AuthMetadataPlugin):
    """Adds a token to each call; one in a file may be replaced meanwhile."""

    def __init__(self, token: str | Path) -> None:
        self._token = token

    def __call__(self, _: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            callback((("authorization", f"Bearer {read_token(self._token)}"),), None)
        except InvalidInputError as error:
            callback((), error)


def _tls_of(endpoint: Endpoint) -> grpc.ChannelCredentials:
    authorities = None if endpoint.tls_ca is None else load_authorities(endpoint.tls_ca)
    if endpoint.tls_cert is None or endpoint.tls_key is None:
        return grpc.ssl_channel_credentials(authorities)
    identity = load_identity(endpoint.tls_cert, endpoint.tls_key)
    return grpc.ssl_channel_credentials(authorities, identity.key, identity.certificate)


class SiloConnection:
    """A channel to one silo. Make it inside a running event loop.

    Args:
        endpoint: where the silo is.
        credentials: of this client.
        trust: knows the silo's signing key.
    """

    def __init__(self, endpoint: Endpoint, credentials: grpc.ChannelCredentials, trust: Trust) -> None:
        self.table = endpoint.table
        address = parse_address(endpoint.address)
        proxy = proxy_variable(address)
        self.peer = f"the silo at {endpoint.address}"
        if proxy is not None:
            self.peer += f", asked for through the proxy of the variable {proxy},"
        self._traces = None if endpoint.otlp is None else Traces(endpoint.otlp)
        self.channel = grpc.aio.secure_channel(
            endpoint.address,
            credentials,
            interceptors=[] if self._traces is None else self._traces.interceptors(),
            options=[
                *KEEPALIVE,
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2_000),
                # A silo that has moved is found at its new address after a second, not after the default 30 s.
                ("grpc.dns_min_time_between_resolutions_ms", 1_000),
                ("grpc.enable_http_proxy", int(not address.is_local)),
            ],
        )
        self._silo = SiloStub(self.channel)
        self._trust = trust
        self._key: bytes | None = None

    async def close(self, grace: float | None = None) -> None:
        """Close the channel.

        Args:
            grace: seconds that calls in progress may still take; by default none.
        """
        await self.channel.close(grace)
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)

    async def describe(self, timeout: float) -> SiloCard:
        """Return what the silo is, and what it knows about the caller.

        Raises:
            UntrustedCardError: the card is not signed by the key that this client trusts.
        """
        request = pb.DescribeRequest()
        card = await self.call(self._silo.Describe(request, timeout=timeout))
        key = self._require_signed(card, request)
        if key != self._key:
            await asyncio.to_thread(self._trust.require, key, key_changes_from_wire(card))
            self._key = key
        return silo_from_wire(card)

    async def signed(self, card: _Card, asked: Message, timeout: float) -> _Card:
        """Return a card once it is known to be the silo's.

        Args:
            card: as it came.
            asked: what it answers.
            timeout: seconds to ask the silo for its key.

        Raises:
            UntrustedCardError: it is not signed by the key that this client trusts.
        """
        if self._key is None or card.signature.key != self._key:  # type: ignore[attr-defined]
            await self.describe(timeout)  # the silo may have another key by now
        if self._require_signed(card, asked) != self._key:
            raise UntrustedCardError(
                f"{self.peer} sent a card that another key has signed than its own. Something between changes cards, "
                "or its replicas do not share one store: ask its operator. Nothing was encrypted."
            )
        return card

    def _require_signed(self, card: Message, asked: Message) -> bytes:
        """Return the key that has signed a card."""
        if not is_card_signed(card, asked):
            raise UntrustedCardError(
                f"A card that came from {self.peer} is not what the silo has signed: its signature is missing or wrong "
                f"({card.DESCRIPTOR.name}). Something between changes cards, or the versions of Sealign differ: ask "
                "its operator. Nothing was encrypted."
            )
        key: bytes = card.signature.key  # type: ignore[attr-defined]
        return key

    async def call(self, call: Awaitable[_Reply]) -> _Reply:
        """Await a call, and raise Sealign's error if it fails."""
        with self.errors():
            return await call

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise Sealign's error where a call inside fails."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_of(error, self.peer) from None
