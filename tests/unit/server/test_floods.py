"""Connections that are flooded are cut, over real sockets; those that make calls, or send little, are not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from sealign_server.rpc.callers import CallersLayer
from sealign_server.runtime.floods import FloodWatch

MUCH = 300 << 10


@dataclass
class Ends:
    """Both ends of a connection to a listener of this process."""

    client: socket.socket
    server: socket.socket

    def send(self, count: int) -> None:
        """Send bytes, and read them at the other end, so that none waits in a buffer."""
        left = count
        while left:
            self.client.sendall(bytes(min(left, 1 << 15)))
            left -= len(self.server.recv(min(left, 1 << 15), socket.MSG_WAITALL))

    @property
    def is_cut(self) -> bool:
        self.client.settimeout(0.05)
        try:
            return self.client.recv(1) == b""
        except TimeoutError:
            return False

    @property
    def name(self) -> str:
        """As gRPC names the peer."""
        host, port = self.client.getsockname()[:2]
        return f"ipv6:%5B{host}%5D:{port}" if self.client.family == socket.AF_INET6 else f"ipv4:{host}:{port}"


@dataclass
class Callers(CallersLayer):
    """Peers that make calls, as the test says."""

    names: set[str] = field(default_factory=set)

    def taken(self) -> set[str]:
        return self.names


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        made = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip("no IPv6 here")
    with made:
        yield made


def connected(listener: socket.socket) -> Ends:
    client = socket.create_connection(listener.getsockname()[:2])
    return Ends(client, listener.accept()[0])


def test_a_flood_is_cut_and_callers_and_quiet_peers_are_not(listener: socket.socket) -> None:
    callers = Callers()
    watch = FloodWatch([listener.getsockname()[1]], callers)
    flooding, calling, quiet = (connected(listener) for _ in range(3))
    callers.names = {calling.name}
    watch.look(0.0)
    for ends in (flooding, calling):
        ends.send(MUCH)
    quiet.send(1000)
    watch.look(0.5)
    assert [ends.is_cut for ends in (flooding, calling, quiet)] == [True, False, False]


def test_who_has_made_calls_is_cut_after_two_seconds_without_one(listener: socket.socket) -> None:
    callers = Callers()
    watch = FloodWatch([listener.getsockname()[1]], callers)
    ends = connected(listener)
    callers.names = {ends.name}
    ends.send(MUCH)
    watch.look(0.0)
    callers.names = set()
    ends.send(MUCH)
    watch.look(1.9)
    assert not ends.is_cut  # its calls may have been ended before Python saw them
    watch.look(2.1)
    assert ends.is_cut


def test_connections_of_other_ports_and_new_ones_under_an_old_number_are_told_apart(listener: socket.socket) -> None:
    other = socket.create_server(("127.0.0.1", 0))
    watch = FloodWatch([listener.getsockname()[1]], Callers())
    elsewhere, first = connected(other), connected(listener)
    elsewhere.send(MUCH)
    first.send(200 << 10)
    watch.look(0.0)
    second = connected(listener)
    os.dup2(second.server.fileno(), first.server.fileno())  # as the system does with a number that is free again
    second.send(200 << 10)
    watch.look(0.5)
    assert not [ends for ends in (second, elsewhere) if ends.is_cut]
    other.close()
