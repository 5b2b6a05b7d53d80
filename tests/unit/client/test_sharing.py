"""Rows of concurrent callers in shared ciphertexts: when that is cheaper, and each caller's own answers and errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sealign.errors import (
    BudgetExhaustedError,
    DecryptionError,
    InvalidInputError,
    OverloadedError,
    UnavailableError,
)
from sealign.protocol import Limits
from sealign_client import AsyncClient, Client
from sealign_client.daemon.room import MAX_WAITING, require_room
from tests.support.fakesilo import Address, FakeSilo
from tests.support.views import PUBLIC, client_encoder

CALLERS = 40
ROWS = client_encoder().encode([f"query {number}" for number in range(CALLERS)])
ASKED = ("Classify", "ClassifyStream")


@pytest.fixture
async def client(address: Address, fake: FakeSilo, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    settings = address.settings(map_directory=tmp_path / "maps", timeout=20.0)
    async with AsyncClient(**settings, encoder=client_encoder()) as client:
        await client.align(PUBLIC)
        await client.logits(ROWS[:1])
        fake.calls.clear()
        yield client


def asked(fake: FakeSilo) -> int:
    """How many calls about rows have come."""
    return sum(call in ASKED for call in fake.calls)


async def each_alone(client: AsyncClient) -> list[Any]:
    return await asyncio.gather(*(client.logits(row[None]) for row in ROWS), return_exceptions=True)


async def expected(client: AsyncClient) -> np.ndarray[Any, Any]:
    return await client.logits(ROWS)


def near(got: Any, wanted: Any) -> bool:
    return bool(np.abs(np.asarray(got) - wanted).max() <= 2 / 64)


async def test_callers_at_once_travel_in_one_ciphertext_and_each_gets_its_own_rows(
    client: AsyncClient, fake: FakeSilo
) -> None:
    got = await each_alone(client)
    assert asked(fake) == 1
    assert near(np.concatenate(got), await expected(client))


async def test_threads_share_as_well(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    encoder = client_encoder()
    with Client(**address.settings(map_directory=tmp_path / "maps"), encoder=encoder) as client:
        client.align(PUBLIC)
        texts = [f"query {number}" for number in range(CALLERS)]
        labels = [result.label for result in client.classify(texts)]
        fake.calls.clear()

        def slow(method: str, reply: Any) -> Any:
            if method in ASKED:
                time.sleep(0.3)  # all others arrive meanwhile
            return reply

        fake.tamper = slow
        with ThreadPoolExecutor(CALLERS) as pool:
            assert list(pool.map(lambda text: client.classify(text).label, texts)) == labels
        assert asked(fake) < CALLERS / 2


async def test_what_is_cheaper_apart_stays_apart(client: AsyncClient, fake: FakeSilo) -> None:
    plans = fake.plans
    fake.plans = lambda rows: plans(rows)[:1]  # type: ignore[method-assign]
    await client.describe(refresh=True)
    got = await each_alone(client)
    assert asked(fake) == CALLERS
    assert near(np.concatenate(got), await expected(client))


async def test_sharing_wastes_no_budget(client: AsyncClient, fake: FakeSilo) -> None:
    """The silo counts the rows that ciphertexts have room for: 64 here, of which callers fill 40."""
    ready = await client.classifier._ready(None)
    bounded = replace(ready, limits=Limits(4096, rows_per_day=1000))
    assert ready.saves_together(40)
    assert not bounded.saves_together(40)
    assert bounded.saves_together(64)
    assert bounded.target(40, None).plan.rows == 1
    small = replace(ready, limits=Limits(rows_per_request=32))
    assert small.target(40, None).plan.rows == 1


async def test_a_bad_row_is_its_callers_fault_alone(client: AsyncClient, fake: FakeSilo) -> None:
    wanted = await expected(client)
    rows = [row[None] * (3 if number == 5 else 1) for number, row in enumerate(ROWS)]
    got = await asyncio.gather(*(client.logits(row) for row in rows), return_exceptions=True)
    assert isinstance(got.pop(5), InvalidInputError)
    assert near(np.concatenate(got), np.delete(wanted, 5, axis=0))  # type: ignore[arg-type]


@pytest.mark.parametrize("when", [0.0, 0.1], ids=["before it is sent", "under way"])
async def test_a_caller_that_leaves_takes_nobody_along(client: AsyncClient, fake: FakeSilo, when: float) -> None:
    wanted = await expected(client)

    def slow(method: str, reply: Any) -> Any:
        time.sleep(0.3)
        return reply

    fake.tamper = slow
    calls = [asyncio.create_task(client.logits(row[None])) for row in ROWS]
    await asyncio.sleep(when)
    for index in (0, 7):
        calls[index].cancel()
    got = await asyncio.gather(*calls, return_exceptions=True)
    left = [isinstance(found, asyncio.CancelledError) for found in got]
    assert [index for index, is_left in enumerate(left) if is_left] == [0, 7]
    rest = [found for found in got if not isinstance(found, BaseException)]
    assert near(np.concatenate(rest), np.delete(wanted, [0, 7], axis=0))


async def test_a_limit_that_all_together_exceed_may_be_enough_for_each(client: AsyncClient, fake: FakeSilo) -> None:
    wanted, first = await expected(client), iter([True])

    def limited(method: str, reply: Any) -> Any:
        if method in ASKED and next(first, False):
            raise InvalidInputError("a request of up to 64 rows is more than the 32 allowed")
        return reply

    fake.calls.clear()
    fake.tamper = limited
    assert near(np.concatenate(await each_alone(client)), wanted)
    assert asked(fake) == 1 + CALLERS


async def test_each_caller_gets_its_own_refusal(client: AsyncClient, fake: FakeSilo) -> None:
    def spent(method: str, reply: Any) -> Any:
        if method in ASKED:
            raise BudgetExhaustedError("no rows are left today")
        return reply

    fake.tamper = spent
    got = await each_alone(client)
    assert {type(error) for error in got} == {BudgetExhaustedError}
    fake.tamper = lambda _, reply: reply
    assert near(np.concatenate(await each_alone(client)), await expected(client))


async def test_a_reply_that_does_not_decrypt_is_everybodys_and_is_not_asked_for_again(
    client: AsyncClient, fake: FakeSilo
) -> None:
    def wrong(method: str, reply: Any) -> Any:
        if method in ASKED:
            from sealign.protocol.conversions import types as wire

            product = wire.product_from_wire(reply.logits, 1000)
            noise = tuple(replace(c, outputs=bytes(len(c.outputs))) for c in product.ciphertexts)
            reply.logits.CopyFrom(wire.product_to_wire(replace(product, ciphertexts=noise)))
        return reply

    fake.tamper = wrong
    got = await each_alone(client)
    assert {type(error) for error in got} <= {DecryptionError, *DecryptionError.__subclasses__()}
    assert asked(fake) == 1


async def test_a_silo_that_hangs_makes_nobody_wait_twice_the_timeout(client: AsyncClient, fake: FakeSilo) -> None:
    client.session.timeout = client.classifier._sharing._patience = 1.0

    def silent(method: str, reply: Any) -> Any:
        if method in ASKED:
            time.sleep(4)
        return reply

    fake.tamper = silent
    started = time.monotonic()
    first = asyncio.create_task(each_alone(client))
    await asyncio.sleep(0.2)
    got = [*await each_alone(client), *await first]
    assert {type(error) for error in got} == {UnavailableError}
    assert time.monotonic() - started < 3.5


async def test_a_client_that_closes_leaves_nobody_waiting(client: AsyncClient, fake: FakeSilo) -> None:
    def slow(method: str, reply: Any) -> Any:
        time.sleep(1.0)
        return reply

    fake.tamper = slow
    calls = [asyncio.create_task(client.logits(row[None])) for row in ROWS]
    await asyncio.sleep(0.2)
    await client.close()
    done, left = await asyncio.wait(calls, timeout=10)  # the timeout of a call is 20 s
    assert not left
    assert all(call.cancelled() or call.exception() is not None for call in done)


def test_more_texts_than_can_wait_are_refused_for_now() -> None:
    def client_with(waiting: int) -> Any:
        return SimpleNamespace(classifier=SimpleNamespace(waiting=waiting))

    require_room(client_with(0), 10 * MAX_WAITING)  # alone
    require_room(client_with(MAX_WAITING - 5), 5)
    with pytest.raises(OverloadedError, match="Try again later") as caught:
        require_room(client_with(MAX_WAITING - 5), 6)
    assert caught.value.retry_after is not None
