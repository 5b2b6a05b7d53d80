"""The ledger of releases: counts that hold across processes, restarts and failures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sealign.errors import ReleaseRefusedError, StorageError
from sealign.protocol import PublicSetCard
from sealign_server.releases import Release, ReleaseLedger

RELEASE = Release("d" * 64, "c" * 64, "CN=client", rows=2048, dimension=384)


def test_one_for_each_public_set_encoder_and_client(tmp_path: Path) -> None:
    path = tmp_path / "releases.sqlite"
    ledger = ReleaseLedger(path)
    assert ledger.releases() == []
    ledger.require_open(RELEASE)
    ledger.record(RELEASE)
    for again in (ReleaseLedger(path).record, ReleaseLedger(path).require_open):
        with pytest.raises(ReleaseRefusedError, match="max_releases"):
            again(RELEASE)
    for other in (replace(RELEASE, public_set="e" * 64), replace(RELEASE, client="CN=another")):
        ReleaseLedger(path).record(other)
    first, *others = ReleaseLedger(path).releases()
    assert replace(first, created="") == RELEASE
    assert len(others) == 2


def test_public_sets_say_what_is_left_where_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "releases.sqlite"
    cards = [PublicSetCard(digest * 64, 2048, "public") for digest in "de"]
    ReleaseLedger(path).record(RELEASE)
    asked = (RELEASE.encoder, RELEASE.dimension, RELEASE.client)
    assert [card.releases_left for card in ReleaseLedger(path).counted(cards, *asked)] == [0, 1]
    path.write_bytes(b"damage" * 1000)
    with capture_logs() as logs:
        assert ReleaseLedger(path).counted(cards, *asked) == tuple(cards)
    assert [(event["event"], event["log_level"]) for event in logs] == [("releases cannot be counted", "error")]


def test_an_encoder_more_is_one_too_many_dimensions(tmp_path: Path) -> None:
    ledger = ReleaseLedger(tmp_path / "releases.sqlite")
    ledger.record(RELEASE)
    with pytest.raises(ReleaseRefusedError, match="768 dimensions"):
        ledger.record(replace(RELEASE, encoder="f" * 64))
    ledger.record(replace(RELEASE, encoder="f" * 64, dimension=128))


def test_more_can_be_allowed(tmp_path: Path) -> None:
    ledger = ReleaseLedger(tmp_path / "releases.sqlite", allowed=2)
    ledger.record(RELEASE)
    ledger.record(RELEASE)
    with pytest.raises(ReleaseRefusedError):
        ledger.record(RELEASE)


def test_a_session_counts_once(tmp_path: Path) -> None:
    """A product that is sent again, by whichever process, is the same release."""
    ledger = ReleaseLedger(tmp_path / "releases.sqlite")
    assert ledger.record(RELEASE, "a" * 32)
    assert not ReleaseLedger(tmp_path / "releases.sqlite").record(RELEASE, "a" * 32)
    assert len(ledger.releases()) == 1
    with pytest.raises(ReleaseRefusedError):
        ledger.record(RELEASE, "b" * 32)


def test_how_many_are_left(tmp_path: Path) -> None:
    ledger = ReleaseLedger(tmp_path / "releases.sqlite", allowed=2)
    assert ledger.left(RELEASE) == 2
    assert not (tmp_path / "releases.sqlite").exists()
    assert ledger.left(replace(RELEASE, rows=4 * 384)) == 2
    assert ledger.left(replace(RELEASE, rows=2 * 384 - 1)) == 0
    ledger.record(RELEASE)
    assert ledger.left(RELEASE) == 1
    assert ledger.left(replace(RELEASE, client="CN=another")) == 2
    assert ledger.left(replace(RELEASE, encoder="f" * 64, dimension=641)) == 0
    assert ledger.left(replace(RELEASE, encoder="f" * 64, dimension=640)) == 1
    assert ledger.left(replace(RELEASE, encoder="f" * 64, dimension=0)) == 2
    ledger.record(RELEASE)
    assert ledger.left(RELEASE) == 0


def test_a_set_that_released_texts_have_joined_counts_with_its_base(tmp_path: Path) -> None:
    ledger = ReleaseLedger(tmp_path / "releases.sqlite")
    joined = replace(RELEASE, public_set="e" * 64, base=RELEASE.public_set, rows=2112)
    ledger.record(joined)
    assert ledger.releases()[0].public_set == "e" * 64
    for other in (RELEASE, joined, replace(joined, public_set="f" * 64)):
        assert ledger.left(other) == 0
        with pytest.raises(ReleaseRefusedError):
            ledger.record(other)


def test_many_at_once_are_counted_one_by_one(tmp_path: Path) -> None:
    def attempt(_: int) -> bool:
        try:
            ReleaseLedger(tmp_path / "releases.sqlite").record(RELEASE)
        except ReleaseRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, range(16))) == 1


def test_without_a_ledger_nothing_is_released(tmp_path: Path) -> None:
    path = tmp_path / "releases.sqlite"
    path.write_bytes(b"not a database, and long enough to be looked at by the library" * 20)
    with pytest.raises(StorageError, match="nothing was released"):
        ReleaseLedger(path).record(RELEASE)
