"""Work is admitted before it waits: refused at once where there is too much, or where it would come too late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sealign.errors import BudgetExhaustedError, InvalidInputError, OverloadedError
from sealign_server.access import Allowance, Bench, RowAccounts, Share
from sealign_server.ledger import Budget, Ledger, Usage, UsageKey

KEY = UsageKey("CN=a", "t", "c")


def working(seconds: float) -> Callable[[], float]:
    def work() -> float:
        time.sleep(seconds)
        return seconds

    return work


async def do(bench: Bench, share: Share, identity: str, seconds: float, remaining: float | None = None) -> object:
    try:
        with bench.admitted(share, identity, remaining) as room:
            return await room.do(working(seconds))
    except OverloadedError as error:
        return error


@pytest.mark.parametrize("share", [Share.SINGLE, Share.BULK])
async def test_more_than_there_is_room_for_is_refused_at_once(share: Share) -> None:
    """The old silo counted short products only while they ran, so it never refused one and queued them all."""
    bench = Bench(16)
    tasks = [asyncio.create_task(do(bench, share, f"CN={n}", 0.02)) for n in range(40)]
    await asyncio.sleep(0)  # one turn of the loop, in which no product can end
    refused = [task for task in tasks if task.done()]
    assert len(refused) == (24 if share is Share.SINGLE else 36)
    for task in refused:
        error = task.result()
        assert isinstance(error, OverloadedError)
        assert error.retry_after is not None
    assert [await task for task in tasks].count(0.02) == 40 - len(refused)
    assert await do(bench, share, "CN=a", 0.0) == 0.0  # there is room again
    bench.close()


async def test_shares_and_identities_leave_one_another_room() -> None:
    bench = Bench(16)
    flood = [asyncio.create_task(do(bench, Share.SINGLE, "CN=flood", 0.01)) for _ in range(100)]
    await asyncio.sleep(0)
    other = asyncio.create_task(do(bench, Share.SINGLE, "CN=other", 0.0))
    lookup = asyncio.create_task(do(bench, Share.LOOKUP, "CN=flood", 0.0))
    assert await lookup == 0.0
    assert await other == 0.0
    await asyncio.gather(*flood)
    bench.close()


async def test_what_would_come_too_late_is_refused_and_what_nobody_waits_for_is_dropped() -> None:
    bench = Bench(64)
    for _ in range(10):
        await do(bench, Share.SINGLE, "CN=a", 0.02)  # learns how long one takes
    queue = [asyncio.create_task(do(bench, Share.SINGLE, "CN=a", 0.02)) for _ in range(20)]
    await asyncio.sleep(0)
    late = await do(bench, Share.SINGLE, "CN=a", 0.02, remaining=0.01)
    assert isinstance(late, OverloadedError)
    done: list[int] = []
    with bench.admitted(Share.SINGLE, "CN=b") as room:
        left = asyncio.create_task(room.do(lambda: done.append(1)))
        await asyncio.sleep(0)
        left.cancel()
    await asyncio.gather(*queue)
    await do(bench, Share.SINGLE, "CN=a", 0.0)
    assert not done
    bench.close()


async def test_errors_of_the_work_are_the_callers() -> None:
    def fail() -> None:
        raise InvalidInputError("malformed")

    bench = Bench(4)
    for share in Share:
        with pytest.raises(InvalidInputError, match="malformed"), bench.admitted(share, "CN=a") as room:
            await room.do(fail)
    bench.close()


async def test_parts_of_what_was_admitted_are_never_refused() -> None:
    bench = Bench(4)
    with bench.admitted(Share.BULK, "CN=a") as room:
        with pytest.raises(OverloadedError), bench.admitted(Share.BULK, "CN=b"):
            pass
        with bench.admitted(Share.BULK, "CN=b", continued=True) as more:
            assert await more.do(lambda: 1) + await room.do(lambda: 1) == 2
    bench.close()


def accounts_of(path: Path, per_day: int | None = None) -> RowAccounts:
    return RowAccounts(Usage(Ledger(path)), lambda _: Allowance(1000, Budget(day=per_day)))


async def test_rows_are_counted_before_the_work_and_ahead(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    accounts = accounts_of(path)
    for _ in range(3):
        await accounts.spend(KEY, 1)
    assert Usage(Ledger(path)).totals() == [(*KEY, 256)]
    await accounts.spend(KEY, 1000)
    with pytest.raises(InvalidInputError, match="more than the 1000"):
        await accounts.spend(KEY, 1001)
    await accounts.release()  # as when the policy has changed
    assert Usage(Ledger(path)).totals() == [(*KEY, 1003)]
    await accounts.spend(KEY, 1)
    accounts.close()
    assert Usage(Ledger(path)).totals() == [(*KEY, 1004)]


async def test_a_day_is_exact_with_rows_counted_ahead(tmp_path: Path) -> None:
    """Two processes share a limit: together they grant it and no more."""
    accounts = [accounts_of(tmp_path / "ledger.sqlite", 100) for _ in range(2)]
    granted = 0
    for turn in range(240):
        with suppress(BudgetExhaustedError):
            await accounts[turn % 2].spend(KEY, 1)
            granted += 1
    assert granted == 100


async def test_many_at_once_spend_what_there_is(tmp_path: Path) -> None:
    accounts = accounts_of(tmp_path / "ledger.sqlite", 50)
    results = await asyncio.gather(*(accounts.spend(KEY, 1) for _ in range(80)), return_exceptions=True)
    assert results.count(None) == 50
