"""The retry policy: faults that pass are waited out until the deadline; what the client mends has its own count."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from sealign.errors import (
    BudgetExhaustedError,
    DecryptionError,
    InvalidInputError,
    OverloadedError,
    SealignError,
    StalePlanError,
    UnavailableError,
    UnknownKeyError,
)
from sealign_client.retry import Retry


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


@pytest.mark.parametrize("error", [InvalidInputError, DecryptionError, BudgetExhaustedError])
async def test_what_no_retry_helps_is_raised_at_once(error: type[SealignError], slept: list[float]) -> None:
    with pytest.raises(error):
        await Retry(60).after(error("no"))
    assert not slept


async def test_pauses_grow_with_jitter_up_to_two_seconds(slept: list[float]) -> None:
    retry = Retry(60)
    for _ in range(12):
        await retry.after(UnavailableError("away"))
    assert all(0.05 * 2**number <= pause <= 0.1 * 2**number for number, pause in enumerate(slept[:5]))
    assert max(slept) <= 2
    assert len(set(slept)) == 12
    retry.progressed()
    await retry.after(UnavailableError("away"))
    assert slept[-1] <= 0.1


async def test_the_silos_own_advice_is_honoured(slept: list[float]) -> None:
    await Retry(60).after(OverloadedError("later", retry_after=7.5))
    assert slept == [7.5]


async def test_nobody_waits_beyond_the_deadline(slept: list[float]) -> None:
    retry = Retry(5)
    for error in (OverloadedError("later", retry_after=6.0), BudgetExhaustedError("tomorrow", retry_after=9.0)):
        with pytest.raises(type(error)):
            await retry.after(error)
    assert not slept


async def test_what_the_client_mends_is_counted_apart() -> None:
    retry, started = Retry(60), monotonic()
    for _ in range(3):
        await retry.after(UnknownKeyError("send it"))
    with pytest.raises(StalePlanError):
        await retry.after(StalePlanError("describe"))
    await retry.after(UnavailableError("away"))  # which has not used up the other's patience
    assert monotonic() - started < 5
