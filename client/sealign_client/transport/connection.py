"""The TLS channel to a silo, and the errors that its failed calls stand for."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc

from sealign.app.addresses import parse_address
from sealign.app.tls import load_authorities, load_identity
from sealign.protocol import SiloCard
from sealign.protocol.conversions.silo import silo_from_wire
from sealign.protocol.status import error_of
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloStub
from sealign_client.endpoint import Endpoint

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


def credentials_of(endpoint: Endpoint) -> grpc.ChannelCredentials:
    """Read the certificates of an endpoint.

    Raises:
        InvalidInputError, AuthenticationError: certificate files that cannot work.
    """
    authorities = None if endpoint.tls_ca is None else load_authorities(endpoint.tls_ca)
    if endpoint.tls_cert is None or endpoint.tls_key is None:
        return grpc.ssl_channel_credentials(authorities)
    identity = load_identity(endpoint.tls_cert, endpoint.tls_key)
    return grpc.ssl_channel_credentials(authorities, identity.key, identity.certificate)


class SiloConnection:
    """A channel to one silo. Make it inside a running event loop."""

    def __init__(self, endpoint: Endpoint, credentials: grpc.ChannelCredentials) -> None:
        self.table = endpoint.table
        self.peer = f"the silo at {endpoint.address}"
        self.channel = grpc.aio.secure_channel(
            endpoint.address,
            credentials,
            options=[
                *KEEPALIVE,
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2_000),
                # A silo that has moved is found at its new address after a second, not after the default 30 s.
                ("grpc.dns_min_time_between_resolutions_ms", 1_000),
                ("grpc.enable_http_proxy", int(not parse_address(endpoint.address).is_local)),
            ],
        )
        self._silo = SiloStub(self.channel)

    async def close(self) -> None:
        """Close the channel."""
        await self.channel.close()

    async def describe(self, timeout: float) -> SiloCard:
        """Return what the silo is, and what it knows about the caller."""
        return silo_from_wire(await self.call(self._silo.Describe(pb.DescribeRequest(), timeout=timeout)))

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
