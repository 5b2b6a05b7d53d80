"""Two silos that come back at each other's address, as containers do: a clear error at once, and recovery alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sealign.errors import AuthenticationError, SealignError, UnavailableError, UntrustedCardError
from sealign_client import Client
from tests.support.certificates import Authority
from tests.support.processes import Server, serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo

QUERY = "query 1"
PATIENCE = 15.0
"""Seconds that a client waits, so many as the demo of two silos."""
SOON = PATIENCE + 10
"""Seconds within which something must be said, on a busy machine too."""


def authority(directory: Path) -> Tls:
    """An authority of its own, with a silo and a client."""
    directory.mkdir()
    made = Authority(directory)
    return Tls(made, made.issue("silo", "localhost", "127.0.0.1"), made.issue("client", "client.example"))


class Pair:
    """Two silos with a client each; which silo listens at which address is the test's.

    Args:
        directory: of everything.
        tls: certificates of each pair.
    """

    def __init__(self, directory: Path, tls: tuple[Tls, Tls]) -> None:
        self._directory, self.tls = directory, tls
        self._silos = [make_silo(directory / f"silo-{number}").directory for number in range(2)]
        self.ports = [0, 0]
        self._starts = 0

    @contextmanager
    def serving(self, *, swapped: bool = False) -> Iterator[list[Server]]:
        """Serve both, at the addresses where they were before, or at each other's."""
        with ExitStack() as running:
            servers = []
            for number, silo in enumerate(self._silos):
                self._starts += 1
                port = self.ports[1 - number if swapped else number]
                options = (*self.tls[number].serve_options, "--listen", f"127.0.0.1:{port}")
                log = self._directory / f"log-{self._starts}"
                servers.append(running.enter_context(serving("sealign-server", "serve", silo, *options, log=log)))
            self.ports = self.ports if all(self.ports) else [server.port for server in servers]
            yield servers

    def client(self, number: int) -> Client:
        """Return a client of the silo that was first at an address."""
        settings = self.tls[number].client_settings(
            self.ports[number], timeout=PATIENCE, map_directory=self._directory / f"maps-{number}"
        )
        return Client(settings, encoder=client_encoder())


def recovered(client: Client, label: str) -> None:
    """Wait until a client has its answer; everything that it says before is said soon."""
    deadline = time.monotonic() + 2 * SOON
    answer = ""
    while not answer:
        started = time.monotonic()
        try:
            answer = client.classify(QUERY).label
        except SealignError:
            assert time.monotonic() - started < SOON
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert answer == label


@pytest.mark.parametrize("shared", [False, True])
def test_a_client_at_the_other_silos_address_is_told_at_once_and_recovers(tmp_path: Path, shared: bool) -> None:
    """With authorities of their own TLS refuses, as in the demo. With one authority the signing key does."""
    first = authority(tmp_path / "first")
    pair = Pair(tmp_path, (first, first if shared else authority(tmp_path / "second")))
    with ExitStack() as clients:
        with pair.serving():
            both = [clients.enter_context(pair.client(number)) for number in range(2)]
            for client in both:
                client.align(PUBLIC)
            labels = [client.classify(QUERY).label for client in both]
        for client in both:  # while both are away
            with pytest.raises(UnavailableError, match="does not answer"):
                client.describe(refresh=True)
        with pair.serving(swapped=True):
            for client in both:
                started = time.monotonic()
                with pytest.raises((AuthenticationError, UntrustedCardError, UnavailableError)) as told:
                    client.describe(refresh=True)
                print(f"after {time.monotonic() - started:.1f} s: {told.value}")
                assert time.monotonic() - started < SOON
                with pytest.raises(SealignError):
                    client.classify(QUERY)
            assert isinstance(told.value, UntrustedCardError if shared else (AuthenticationError, UnavailableError))
        with pair.serving():
            for client, label in zip(both, labels, strict=True):
                recovered(client, label)
