"""The ledger: counts that hold across processes, restarts and failures."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sealign.errors import BudgetExhaustedError, NotFoundError, ReleaseRefusedError, StorageError
from sealign.protocol import PublicSetCard
from sealign_server.ledger import (
    MAP,
    REGISTRATION,
    Budget,
    Ledger,
    Makings,
    Release,
    Releases,
    Usage,
    UsageKey,
    this_hour,
)
from sealign_server.ledger.database import USAGE

Opened = Callable[[], Ledger]

RELEASE = Release("embeddings", "d" * 64, "c" * 64, "CN=client", rows=2048, dimension=384)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, path: Path) -> Opened:
    """Opens one ledger again and again, as processes do."""
    if request.param == "sqlite":
        return lambda: Ledger(path)
    url = request.getfixturevalue("database").fresh()
    return lambda: Ledger(path, url)


def releases(opened: Opened, allowed: int = 1) -> Releases:
    return Releases(opened(), allowed)


def test_one_for_each_public_set_encoder_and_identity(opened: Opened) -> None:
    ledger = releases(opened)
    assert ledger.all() == []
    ledger.require_open(RELEASE)
    ledger.record(RELEASE)
    for again in (releases(opened).record, releases(opened).require_open):
        with pytest.raises(ReleaseRefusedError, match="release grant"):
            again(RELEASE)
    for other in (
        replace(RELEASE, public_set="e" * 64),
        replace(RELEASE, identity="CN=another"),
        replace(RELEASE, space="generation/x"),
    ):
        releases(opened).record(other)
    first, *others = releases(opened).all()
    assert replace(first, created="", number=0) == RELEASE
    assert len(others) == 3


def test_public_sets_say_what_is_left_where_it_can_be_read(opened: Opened, path: Path) -> None:
    cards = [PublicSetCard(digest * 64, 2048, "public") for digest in "de"]
    releases(opened).record(RELEASE)
    assert [card.releases_left for card in releases(opened).counted(cards, RELEASE)] == [0, 1]
    damaged = path.with_name("damaged")
    damaged.write_bytes(b"damage" * 1000)
    with capture_logs() as logs:
        assert releases(lambda: Ledger(damaged)).counted(cards, RELEASE) == tuple(cards)
    assert [(event["event"], event["log_level"]) for event in logs] == [("releases cannot be counted", "error")]


def test_an_encoder_more_is_one_too_many_dimensions(opened: Opened) -> None:
    releases(opened).record(RELEASE)
    with pytest.raises(ReleaseRefusedError, match="768 dimensions"):
        releases(opened).record(replace(RELEASE, encoder="f" * 64))
    releases(opened).record(replace(RELEASE, encoder="f" * 64, dimension=128))


def test_more_can_be_allowed(opened: Opened) -> None:
    ledger = releases(opened, allowed=2)
    ledger.record(RELEASE)
    ledger.record(RELEASE)
    with pytest.raises(ReleaseRefusedError):
        ledger.record(RELEASE)


def test_a_session_counts_once(opened: Opened) -> None:
    """A product that is sent again, by whichever process, is the same release."""
    assert releases(opened).record(RELEASE, "a" * 32)
    assert not releases(opened).record(RELEASE, "a" * 32)
    assert len(releases(opened).all()) == 1
    with pytest.raises(ReleaseRefusedError):
        releases(opened).record(RELEASE, "b" * 32)


def test_a_release_that_was_never_delivered_can_be_granted_again(opened: Opened) -> None:
    releases(opened).record(RELEASE, "a" * 32)
    (recorded,) = releases(opened).all()
    assert releases(opened).grant(recorded.number).identity == RELEASE.identity
    assert releases(opened).left(RELEASE) == 1
    releases(opened).record(RELEASE, "b" * 32)
    with pytest.raises(ReleaseRefusedError):
        releases(opened).record(RELEASE, "c" * 32)
    for number in (recorded.number, 99):
        with pytest.raises(NotFoundError, match="release list"):
            releases(opened).grant(number)


def test_how_many_are_left(opened: Opened) -> None:
    ledger = releases(opened, allowed=2)
    assert ledger.left(RELEASE) == 2
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


def test_a_set_that_shared_examples_have_joined_counts_with_its_base(opened: Opened) -> None:
    ledger = releases(opened)
    joined = replace(RELEASE, public_set="e" * 64, base=RELEASE.public_set, rows=2112)
    ledger.record(joined)
    assert ledger.all()[0].public_set == "e" * 64
    assert ledger.all()[0].base == RELEASE.public_set
    for other in (RELEASE, joined, replace(joined, public_set="f" * 64)):
        assert ledger.left(other) == 0
        with pytest.raises(ReleaseRefusedError):
            ledger.record(other)


def test_many_at_once_are_counted_one_by_one(opened: Opened) -> None:
    def attempt(_: int) -> bool:
        try:
            releases(opened).record(RELEASE)
        except ReleaseRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, range(16))) == 1


def test_without_a_ledger_nothing_is_released(path: Path) -> None:
    path.write_bytes(b"not a database, and long enough to be looked at by the library" * 20)
    with pytest.raises(StorageError, match="nothing was granted"):
        releases(lambda: Ledger(path)).record(RELEASE)


def test_commits_are_synced_and_the_file_is_private(path: Path) -> None:
    ledger = Ledger(path)
    releases(lambda: Ledger(path)).record(RELEASE)
    with ledger.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    for file in path.parent.glob("ledger*"):
        assert file.stat().st_mode & 0o777 == 0o600


# Maps and registrations


def test_maps_and_registrations_of_a_day_are_limited_for_each_identity(opened: Opened) -> None:
    makings = Makings(opened(), per_day=3)
    for kind in (MAP, REGISTRATION, MAP):
        makings.record(kind, "embeddings", "c" * 64, "CN=a")
    with pytest.raises(BudgetExhaustedError, match="3 maps and registrations") as caught:
        Makings(opened(), per_day=3).record(MAP, "embeddings", "f" * 64, "CN=a")
    assert caught.value.retry_after is not None
    assert 86_000 < caught.value.retry_after <= 86_400
    makings.record(MAP, "embeddings", "c" * 64, "CN=b")


# Rows

KEY = UsageKey("CN=a", "topics", "c" * 64)
TEN = Budget(day=10)


def test_rows_are_limited_over_all_encoders(opened: Opened) -> None:
    """Else invented encoders would each have a budget."""
    usage = Usage(opened())
    usage.debit(KEY, 6, 6, TEN)
    usage.debit(KEY._replace(encoder="f" * 64), 4, 4, TEN)
    with pytest.raises(BudgetExhaustedError, match="more than the 0") as caught:
        usage.debit(KEY._replace(encoder="e" * 64), 1, 1, TEN)
    assert caught.value.retry_after is not None
    assert 23 * 3600 - 1 < caught.value.retry_after <= 24 * 3600
    for other in (KEY._replace(identity="CN=b"), KEY._replace(task="others")):
        usage.debit(other, 10, 10, TEN)
    assert (*KEY, 6) in usage.totals()


def test_an_hour_a_day_and_a_lifetime_are_limits_each(opened: Opened) -> None:
    ledger = opened()
    usage, budget = Usage(ledger), Budget(hour=10, day=25, lifetime=40)

    def hours_pass(hours: int) -> None:
        with ledger.transaction() as connection:
            connection.execute(USAGE.update().values(hour=USAGE.c.hour - hours))

    def refused(within: str) -> float | None:
        with pytest.raises(BudgetExhaustedError, match=within) as caught:
            usage.debit(KEY, 10, 10, budget)
        return caught.value.retry_after

    usage.debit(KEY, 10, 10, budget)
    assert 0 < (refused("in one hour") or 0) <= 3600
    hours_pass(1)
    usage.debit(KEY, 10, 10, budget)
    hours_pass(1)
    assert 21 * 3600 < (refused("in 24 hours") or 0) <= 22 * 3600
    hours_pass(24)
    usage.debit(KEY, 10, 10, budget)
    usage.debit(KEY._replace(task="others"), 1, 1, Budget())
    hours_pass(24)
    usage.debit(KEY, 10, 10, budget)
    hours_pass(24)
    assert refused("in all") is None
    (spent,) = (spent for spent in usage.spent() if spent.task == KEY.task)
    assert (spent.hour, spent.day, spent.lifetime) == (0, 0, 40)
    assert (spent.left(budget), spent.left(Budget(hour=10)), spent.left(Budget())) == (0.0, 1.0, 1.0)


def test_what_is_counted_ahead_shrinks_near_the_limit(opened: Opened) -> None:
    usage, budget = Usage(opened()), Budget(hour=200, day=100)
    assert usage.debit(KEY, 1, 256, budget) == 12
    assert usage.debit(KEY, 80, 256, budget) == 80
    assert usage.debit(KEY, 1, 256, budget) == 1
    usage.give_back(KEY, this_hour(), 5)
    assert usage.totals() == [(*KEY, 88)]


def test_asking_a_ledger_that_was_never_written_makes_no_file(path: Path) -> None:
    assert releases(lambda: Ledger(path)).left(RELEASE) == 1
    assert not path.exists()


def _debit(path: str, url: str | None) -> int:
    usage, granted = Usage(Ledger(Path(path), url)), 0
    for _ in range(40):
        with suppress(BudgetExhaustedError):
            granted += usage.debit(KEY, 1, 1, Budget(lifetime=50))
    return granted


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_are_exact_across_processes(request: pytest.FixtureRequest, path: Path, kind: str) -> None:
    url = None if kind == "sqlite" else request.getfixturevalue("database").fresh()
    with get_context("spawn").Pool(2) as processes:
        assert sum(processes.starmap(_debit, [(str(path), url)] * 2)) == 50
