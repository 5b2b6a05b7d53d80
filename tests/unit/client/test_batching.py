"""Texts of several callers in shared batches: everybody in turn, nobody's fault anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sealign.errors import InvalidInputError, OverloadedError, UnavailableError
from sealign_client.daemon import batching
from sealign_client.daemon.batching import Batcher
from sealign_client.results import Classification


def result(text: str) -> Classification:
    return Classification(text, 0, None, None, (), (), {}, None)


class Recorder:
    """Classifies after a moment, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def __call__(self, texts: Sequence[str], task: str | None) -> list[Classification]:
        self.batches.append(list(texts))
        await asyncio.sleep(0.01)
        bad = [index for index, text in enumerate(texts) if text == "bad"]
        if bad:
            raise InvalidInputError(f"text {bad[0]} is bad")
        if task == "away":
            raise UnavailableError("away")
        return [result(text) for text in texts]


async def test_results_come_back_in_each_callers_order() -> None:
    record = Recorder()
    batcher = Batcher(record)
    wanted = [[f"{caller}/{number}" * (number % 7 + 1) for number in range(50)] for caller in range(5)]
    got = await asyncio.gather(*(batcher.classify(texts, None) for texts in wanted))
    assert [[r.label for r in results] for results in got] == wanted
    assert max(map(len, record.batches)) <= 64
    assert len(record.batches) < 50
    for batch in record.batches:
        assert [len(text) for text in batch] == sorted(len(text) for text in batch)


async def test_one_text_does_not_wait_for_thousands() -> None:
    record = Recorder()
    batcher = Batcher(record)
    large = asyncio.create_task(batcher.classify([f"large {number}" for number in range(3000)], None))
    await asyncio.sleep(0.005)
    before = len(record.batches)
    assert [r.label for r in await batcher.classify(["small"], None)] == ["small"]
    assert len(record.batches) - before <= 4
    assert not large.done()
    assert len(await large) == 3000


async def test_what_a_caller_left_behind_is_dropped() -> None:
    record = Recorder()
    batcher = Batcher(record)
    left = asyncio.create_task(batcher.classify([f"left {number}" for number in range(3000)], None))
    await asyncio.sleep(0.015)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    await batcher.classify(["small"], None)
    assert sum(map(len, record.batches)) < 600


async def test_a_fault_is_its_callers_alone_by_its_own_index() -> None:
    batcher = Batcher(Recorder())
    good, bad = await asyncio.gather(
        batcher.classify(["one", "two"], None), batcher.classify(["x", "bad"], None), return_exceptions=True
    )
    assert [r.label for r in good] == ["one", "two"]  # type: ignore[union-attr]
    assert str(bad) == "text 1 is bad"


async def test_other_tasks_and_no_texts() -> None:
    batcher = Batcher(Recorder())
    with pytest.raises(UnavailableError):
        await batcher.classify(["one"], "away")
    assert [r.label for r in await batcher.classify(["one"], "here")] == ["one"]
    assert await batcher.classify([], None) == []


async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_QUEUED", 200)
    batcher = Batcher(Recorder())
    first = asyncio.create_task(batcher.classify(["text"] * 300, None))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as caught:
        await batcher.classify(["text"] * 100, None)
    assert caught.value.retry_after is not None
    assert len(await first) == 300
