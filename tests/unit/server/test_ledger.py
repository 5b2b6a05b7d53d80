"""The ledger: counts that hold across processes, restarts and failures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from sealign.errors import BudgetExhaustedError, NotFoundError, ReleaseRefusedError, StorageError
from sealign.protocol import PublicSetCard
from sealign_server.ledger import MAP, REGISTRATION, Ledger, Makings, Release, Releases, Usage
from sealign_server.ledger.database import USAGE

RELEASE = Release("embeddings", "d" * 64, "c" * 64, "CN=client", rows=2048, dimension=384)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def releases(path: Path, allowed: int = 1) -> Releases:
    return Releases(Ledger(path), allowed)


def test_one_for_each_public_set_encoder_and_identity(path: Path) -> None:
    ledger = releases(path)
    assert ledger.all() == []
    ledger.require_open(RELEASE)
    ledger.record(RELEASE)
    for again in (releases(path).record, releases(path).require_open):
        with pytest.raises(ReleaseRefusedError, match="release grant"):
            again(RELEASE)
    for other in (
        replace(RELEASE, public_set="e" * 64),
        replace(RELEASE, identity="CN=another"),
        replace(RELEASE, space="generation/x"),
    ):
        releases(path).record(other)
    first, *others = releases(path).all()
    assert replace(first, created="", number=0) == RELEASE
    assert len(others) == 3


def test_public_sets_say_what_is_left_where_it_can_be_read(path: Path) -> None:
    cards = [PublicSetCard(digest * 64, 2048, "public") for digest in "de"]
    releases(path).record(RELEASE)
    assert [card.releases_left for card in releases(path).counted(cards, RELEASE)] == [0, 1]
    path.with_name("damaged").write_bytes(b"damage" * 1000)
    with capture_logs() as logs:
        assert releases(path.with_name("damaged")).counted(cards, RELEASE) == tuple(cards)
    assert [(event["event"], event["log_level"]) for event in logs] == [("releases cannot be counted", "error")]


def test_an_encoder_more_is_one_too_many_dimensions(path: Path) -> None:
    releases(path).record(RELEASE)
    with pytest.raises(ReleaseRefusedError, match="768 dimensions"):
        releases(path).record(replace(RELEASE, encoder="f" * 64))
    releases(path).record(replace(RELEASE, encoder="f" * 64, dimension=128))


def test_more_can_be_allowed(path: Path) -> None:
    ledger = releases(path, allowed=2)
    ledger.record(RELEASE)
    ledger.record(RELEASE)
    with pytest.raises(ReleaseRefusedError):
        ledger.record(RELEASE)


def test_a_session_counts_once(path: Path) -> None:
    """A product that is sent again, by whichever process, is the same release."""
    assert releases(path).record(RELEASE, "a" * 32)
    assert not releases(path).record(RELEASE, "a" * 32)
    assert len(releases(path).all()) == 1
    with pytest.raises(ReleaseRefusedError):
        releases(path).record(RELEASE, "b" * 32)


def test_a_release_that_was_never_delivered_can_be_granted_again(path: Path) -> None:
    releases(path).record(RELEASE, "a" * 32)
    (recorded,) = releases(path).all()
    assert releases(path).grant(recorded.number).identity == RELEASE.identity
    assert releases(path).left(RELEASE) == 1
    releases(path).record(RELEASE, "b" * 32)
    with pytest.raises(ReleaseRefusedError):
        releases(path).record(RELEASE, "c" * 32)
    for number in (recorded.number, 99):
        with pytest.raises(NotFoundError, match="release list"):
            releases(path).grant(number)


def test_how_many_are_left(path: Path) -> None:
    ledger = releases(path, allowed=2)
    assert ledger.left(RELEASE) == 2
    assert not path.exists()
    assert ledger.left(replace(RELEASE, rows=4 * 384)) == 2
    assert ledger.left(replace(RELEASE, rows=2 * 384 - 1)) == 0
    ledger.record(RELEASE)
    assert ledger.left(RELEASE) == 1
    assert ledger.left(replace(RELEASE, identity="CN=another")) == 2
    assert ledger.left(replace(RELEASE, encoder="f" * 64, dimension=641)) == 0
    assert ledger.left(replace(RELEASE, encoder="f" * 64, dimension=640)) == 1
    assert ledger.left(replace(RELEASE, encoder="f" * 64, dimension=0)) == 2
    ledger.record(RELEASE)
    assert ledger.left(RELEASE) == 0


def test_a_set_that_shared_examples_have_joined_counts_with_its_base(path: Path) -> None:
    ledger = releases(path)
    joined = replace(RELEASE, public_set="e" * 64, base=RELEASE.public_set, rows=2112)
    ledger.record(joined)
    assert ledger.all()[0].public_set == "e" * 64
    assert ledger.all()[0].base == RELEASE.public_set
    for other in (RELEASE, joined, replace(joined, public_set="f" * 64)):
        assert ledger.left(other) == 0
        with pytest.raises(ReleaseRefusedError):
            ledger.record(other)


def test_many_at_once_are_counted_one_by_one(path: Path) -> None:
    def attempt(_: int) -> bool:
        try:
            releases(path).record(RELEASE)
        except ReleaseRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, range(16))) == 1


def test_without_a_ledger_nothing_is_released(path: Path) -> None:
    path.write_bytes(b"not a database, and long enough to be looked at by the library" * 20)
    with pytest.raises(StorageError, match="nothing was granted"):
        releases(path).record(RELEASE)


def test_commits_are_synced_and_the_file_is_private(path: Path) -> None:
    ledger = Ledger(path)
    releases(path).record(RELEASE)
    with ledger.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    for file in path.parent.glob("ledger*"):
        assert file.stat().st_mode & 0o777 == 0o600


# Maps and registrations


def test_maps_and_registrations_of_a_day_are_limited_for_each_identity(path: Path) -> None:
    makings = Makings(Ledger(path), per_day=3)
    for kind in (MAP, REGISTRATION, MAP):
        makings.record(kind, "embeddings", "c" * 64, "CN=a")
    with pytest.raises(BudgetExhaustedError, match="3 maps and registrations") as caught:
        Makings(Ledger(path), per_day=3).record(MAP, "embeddings", "f" * 64, "CN=a")
    assert caught.value.retry_after is not None
    assert 86_000 < caught.value.retry_after <= 86_400
    makings.record(MAP, "embeddings", "c" * 64, "CN=b")


# Rows


def test_rows_are_limited_over_all_encoders(path: Path) -> None:
    """Else invented encoders would each have a budget."""
    usage = Usage(Ledger(path), per_day=10)
    usage.debit("CN=a", "topics", "c" * 64, 6, 6)
    usage.debit("CN=a", "topics", "f" * 64, 4, 4)
    with pytest.raises(BudgetExhaustedError, match="more than the 0") as caught:
        usage.debit("CN=a", "topics", "e" * 64, 1, 1)
    assert caught.value.retry_after is not None
    assert 23 * 3600 - 1 < caught.value.retry_after <= 24 * 3600
    for other in (("CN=b", "topics"), ("CN=a", "others")):
        usage.debit(*other, "c" * 64, 10, 10)
    assert ("CN=a", "topics", "c" * 64, 6) in usage.totals()


def test_rows_of_yesterday_do_not_count(path: Path) -> None:
    ledger = Ledger(path)
    usage = Usage(ledger, per_day=10)
    usage.debit("CN=a", "topics", "c" * 64, 10, 10)
    with ledger.transaction() as connection:
        hour = connection.execute(select(USAGE.c.hour)).scalar_one()
        connection.execute(USAGE.update().values(hour=hour - 24))
    usage.debit("CN=a", "topics", "c" * 64, 10, 10)
    assert usage.totals() == [("CN=a", "topics", "c" * 64, 20)]


def test_what_is_counted_ahead_shrinks_near_the_limit(path: Path) -> None:
    usage = Usage(Ledger(path), per_day=100)
    assert usage.debit("CN=a", "t", "c", 1, 256) == 12
    assert usage.debit("CN=a", "t", "c", 80, 256) == 80
    assert usage.debit("CN=a", "t", "c", 1, 256) == 1
    usage.give_back("CN=a", "t", "c", 5)
    assert usage.totals() == [("CN=a", "t", "c", 88)]


def _debit(path: str) -> int:
    usage, granted = Usage(Ledger(Path(path)), per_day=50), 0
    for _ in range(40):
        with suppress(BudgetExhaustedError):
            granted += usage.debit("CN=a", "t", "c", 1, 1)
    return granted


def test_rows_are_exact_across_processes(path: Path) -> None:
    with get_context("spawn").Pool(2) as processes:
        assert sum(processes.map(_debit, [str(path)] * 2)) == 50
