"""Encrypted alignments whose processes are killed, on either side, and that are gone on with, at another worker too."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sealign.errors import ReleaseRefusedError, UnavailableError
from sealign.protocol import CrossCovariancePart
from sealign_client import Client
from sealign_client.encrypted_alignment import EncryptedAlignment
from sealign_client.results import Transfer
from tests.integration.test_encrypted_alignment import assert_right, files, releases
from tests.support.aligning_client import MADE, RECEIVED, RECEIVING, SENDING, SENT, align
from tests.support.processes import Server, serving
from tests.support.relay import Relay
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, TEXTS, client_encoder, make_silo


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_silo(tmp_path / "silo").directory


@contextmanager
def silo_of(directory: Path, tls: Tls, log: str) -> Iterator[Server]:
    options = (*tls.serve_options, "--log-level", "debug")
    with serving("sealign-server", "serve", directory, *options, log=directory / log) as server:
        yield server


def assert_aligned_once(directory: Path, tls: Tls, port: int, maps: Path) -> None:
    """One release was counted, its map is there and works, and nothing else is left at the client."""
    with Client(tls.client_settings(port, map_directory=maps), encoder=client_encoder()) as client:
        assert_right(client, directory)
    assert releases(directory) == 1
    assert len(files(maps, ".safetensors")) == 1
    assert not files(maps, ".alignment")


def assert_no_product_waits(directory: Path) -> None:
    assert not [path for path in directory.rglob("undelivered/**/*") if path.is_file()]


@pytest.mark.parametrize("point", [SENDING, SENT, RECEIVING, MADE])
def test_a_client_that_was_killed_goes_on(directory: Path, tls: Tls, tmp_path: Path, point: str) -> None:
    maps = tmp_path / "maps"
    with silo_of(directory, tls, "silo.log") as server:
        align(server.port, tls, maps, point)
        kept = [path for path in maps.rglob("*") if path.is_file() and path.parent != maps]
        assert {path.suffix for path in kept} == {".key", ".rows", ".safetensors"}
        assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
        said = align(server.port, tls, maps)
        assert said["rows"] == TEXTS
        assert said["embedded"] == 0  # the expensive part was not done again
        assert said["notes"] == ["resuming the alignment that was interrupted"]
        assert len(server.events("encrypted alignment begun")) == 1
        indices = [event["index"] for event in server.events("inner block")]
        assert indices == sorted(set(indices))
        assert len(server.events("cross-covariance released")) == 1
        assert_no_product_waits(directory)
        assert_aligned_once(directory, tls, server.port, maps)


def test_a_client_that_was_killed_when_all_was_done_has_its_map(
    directory: Path, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The silo does not know that all has come; the release is used up, which it tells before anything is embedded."""
    maps = tmp_path / "maps"
    with silo_of(directory, tls, "silo.log") as server:
        align(server.port, tls, maps, RECEIVED)
        encoder = client_encoder()
        with Client(tls.client_settings(server.port, map_directory=maps), encoder=encoder) as client:
            assert_right(client, directory)
            monkeypatch.setattr(encoder, "encode", None)
            with pytest.raises(ReleaseRefusedError, match="Use the map that was learned"):
                client.align(PUBLIC, mode="encrypted")


@pytest.mark.parametrize(
    ("point", "restarted"), [(SENDING, True), (SENT, True), (SENT, False), (RECEIVING, True), (RECEIVING, False)]
)
def test_a_silo_that_restarts_and_another_worker(
    directory: Path, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, restarted: bool
) -> None:
    """A finished product is sent on by whoever is asked; sums that are lost are begun with anew."""
    maps, notes = tmp_path / "maps", list[str]()
    with (
        Relay() as relay,
        silo_of(directory, tls, "first.log") as first,
        silo_of(directory, tls, "second.log") as second,
        Client(tls.client_settings(relay.port, map_directory=maps), encoder=client_encoder()) as client,
    ):
        relay.target = first.port

        def leave(now: Transfer) -> None:
            notes.append(now.note)
            if {SENDING: now.sent > 0, SENT: now.sent > 0.45 * now.total}.get(point) and relay.target == first.port:
                go()

        def go() -> None:
            relay.target = second.port
            if restarted:
                first.end(signal.SIGKILL)
            else:
                relay.cut()

        take = EncryptedAlignment._take

        async def taken(alignment: EncryptedAlignment, part: CrossCovariancePart) -> None:
            if point == RECEIVING and relay.target == first.port:
                go()
                raise UnavailableError("the first part was lost on the way")
            await take(alignment, part)

        monkeypatch.setattr(EncryptedAlignment, "_take", taken)
        client.align(PUBLIC, mode="encrypted", transfer=leave)
        assert any("went away" in note for note in notes)
        if point == RECEIVING:
            assert not second.events("encrypted alignment begun")
            assert_no_product_waits(directory)
        if point == SENDING:
            assert len(second.events("encrypted alignment begun")) == 1
        assert_aligned_once(directory, tls, second.port, maps)


def test_both_sides_are_killed(directory: Path, tls: Tls, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    with silo_of(directory, tls, "first.log") as first:
        align(first.port, tls, maps, RECEIVING)
        first.end(signal.SIGKILL)
    with silo_of(directory, tls, "second.log") as second:
        said = align(second.port, tls, maps)
        assert said["embedded"] == 0
        assert not second.events("encrypted alignment begun")
        assert_aligned_once(directory, tls, second.port, maps)
