"""Connections that are flooded, and make no calls, are cut.

gRPC closes a connection with too many pings, and cannot while a write is under way: each further ping then asks for
another write, and adds to the text of an error, which is copied each time. A peer that sends fast enough is never cut
so, and keeps a thread busy. Nothing in the chain of layers sees it, since there is no call. The kernel counts the bytes
of each connection, and a socket that is shut down ends the rest.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from time import monotonic
from urllib.parse import unquote

import structlog

from sealign_server.rpc.callers import CallersLayer

_log = structlog.get_logger()

_SECONDS = 0.5
_BYTES = 256 << 10
"""That a connection may send without a call: a handshake, settings, 15,000 pings."""
_QUIET_SECONDS = 2.0
"""Time without a call after which that holds for connections that have made some: in an overload, gRPC's core ends
calls that Python never sees."""
_RECEIVED = struct.Struct("128xQ")
"""`tcpi_bytes_received` of Linux's `tcp_info`."""

Peer = tuple[str, int]


@dataclass
class _Connection:
    """What is known of a connection.

    Attributes:
        peer: at its other end.
        called: when it last had a call open, by the monotonic clock; None for never.
        before: bytes that it had sent then.
        received: bytes that it has sent so far.
    """

    peer: Peer
    called: float | None = None
    before: int = 0
    received: int = 0

    def is_flood(self, now: float) -> bool:
        """Return whether it sends much and calls nothing."""
        quiet = self.called is None or now - self.called >= _QUIET_SECONDS
        return quiet and self.received - self.before > _BYTES


class FloodWatch:
    """Cuts connections of this process that are flooded.

    Args:
        ports: on which it listens.
        callers: who makes calls.
    """

    def __init__(self, ports: Collection[int], callers: CallersLayer) -> None:
        self._ports = frozenset(ports)
        self._callers = callers
        self._known: dict[int, _Connection] = {}

    async def keep_watch(self) -> None:
        """Look twice a second; never returns."""
        while True:
            await asyncio.sleep(_SECONDS)
            self.look(monotonic())

    def look(self, now: float) -> None:
        """Look at every connection once."""
        callers = set(map(_peer_of, self._callers.taken()))
        seen: dict[int, _Connection] = {}
        for descriptor, peer, received in self._connections():
            known = self._known.get(descriptor)
            if known is None or known.peer != peer or received < known.received:
                known = _Connection(peer)
            seen[descriptor] = known
            known.received = received
            if peer in callers:
                known.called, known.before = now, received
            if known.is_flood(now):
                self._cut(descriptor, known)
        self._known = seen

    def _connections(self) -> Iterator[tuple[int, Peer, int]]:
        """Yield descriptor, peer and received bytes of each connection that came to a port of ours."""
        for entry in Path("/proc/self/fd").iterdir():
            descriptor = int(entry.name)
            with suppress(OSError, struct.error):
                found = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=descriptor)
                try:
                    (received,) = _RECEIVED.unpack_from(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))
                    if _end(found.getsockname())[1] in self._ports:
                        yield descriptor, _end(found.getpeername()), received
                finally:
                    found.detach()

    @staticmethod
    def _cut(descriptor: int, known: _Connection) -> None:
        """Shut a connection down, if it is still the one; gRPC then closes it."""
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as found:
            if _end(found.getpeername()) == known.peer:
                found.shutdown(socket.SHUT_RDWR)
                _log.warning("connection cut: it was flooded", bytes=known.received - known.before)


def _end(address: object) -> Peer:
    """Return host and port of a socket's address; other families have none."""
    if not isinstance(address, tuple):
        return "", 0
    return _plain(str(address[0])), int(address[1])


def _peer_of(name: str) -> Peer:
    """Return host and port of gRPC's name of a peer, for example "ipv6:%5B::1%5D:50051"."""
    _, _, address = unquote(name).partition(":")
    host, _, port = address.rpartition(":")
    return _plain(host.strip("[]")), int(port) if port.isdigit() else 0


def _plain(host: str) -> str:
    """Return an address in its shortest form; an IPv4 address inside IPv6 as that."""
    try:
        parsed = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)
