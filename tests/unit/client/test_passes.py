"""Texts of several callers in shared passes of the encoder: everybody in turn, nobody's fault anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from sealign.encoders.encoder import Embeddings
from sealign.encoders.settings import LongTexts
from sealign.errors import InvalidInputError, MachineError
from sealign_client.passes import Passes


def row(text: str) -> list[float]:
    return [float(sum(map(ord, text))), float(len(text))]


def rows(texts: Sequence[str]) -> list[list[float]]:
    return [row(text) for text in texts]


async def characters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


class Recorder:
    """Embeds after a moment, and remembers the passes."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.choices: list[LongTexts | None] = []

    async def __call__(self, texts: Sequence[str], long_texts: LongTexts | None) -> Embeddings:
        self.passes.append(list(texts))
        self.choices.append(long_texts)
        await asyncio.sleep(0.01)
        bad = [index for index, text in enumerate(texts) if text == "bad"]
        if bad:
            raise InvalidInputError(f"text {bad[0] + 1} is bad")
        if "broken" in texts:
            raise MachineError("out of memory")
        return np.array(rows(texts), np.float32)


async def test_rows_come_back_in_each_callers_order() -> None:
    record = Recorder()
    passes = Passes(record, characters)
    wanted = [[f"{caller}/{number}" * (number % 7 + 1) for number in range(50)] for caller in range(5)]
    got = await asyncio.gather(*(passes.embed(texts) for texts in wanted))
    assert [found.tolist() for found in got] == [rows(texts) for texts in wanted]
    assert max(map(len, record.passes)) <= 64
    assert len(record.passes) < 25
    assert any(len({text.partition("/")[0] for text in batch}) == 5 for batch in record.passes)
    for batch in record.passes:
        assert [len(text) for text in batch] == sorted(len(text) for text in batch)


async def test_the_longest_come_first_since_they_may_be_refused() -> None:
    record = Recorder()
    texts = ["word " * (number + 1) for number in range(300)]
    await Passes(record, characters).embed(texts)
    assert record.passes[0][-1] == texts[-1]


async def test_texts_of_like_length_to_the_model_share_a_pass() -> None:
    async def words(texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    record = Recorder()
    texts = ["a " * (number % 2 * 20 + 1) + "b" * (number % 3 * 50) for number in range(256)]
    await Passes(record, words).embed(texts)
    mixed = [batch for batch in record.passes if len({count > 2 for count in await words(batch)}) == 2]
    assert len(mixed) <= 1


async def test_some_wait_so_that_they_are_embedded_while_others_are_at_the_silo() -> None:
    record = Recorder()
    passes = Passes(record, characters)
    await asyncio.gather(*(passes.embed([f"text {number}"]) for number in range(32)))
    assert [len(batch) for batch in record.passes[:2]] == [16, 8]


async def test_one_text_does_not_wait_for_thousands() -> None:
    record = Recorder()
    passes = Passes(record, characters)
    large = asyncio.create_task(passes.embed([f"large {number}" for number in range(3000)]))
    await asyncio.sleep(0.005)
    before = len(record.passes)
    assert (await passes.embed(["small"])).tolist() == rows(["small"])
    assert len(record.passes) - before <= 4
    assert not large.done()
    assert len(await large) == 3000


async def test_what_a_caller_left_behind_is_dropped() -> None:
    record = Recorder()
    passes = Passes(record, characters)
    left = asyncio.create_task(passes.embed([f"left {number}" for number in range(3000)]))
    await asyncio.sleep(0.015)
    assert passes.waiting > 2000
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    assert passes.waiting == 0
    await passes.embed(["small"])
    assert sum(map(len, record.passes)) < 600


async def test_a_fault_is_its_callers_alone_by_its_own_number() -> None:
    passes = Passes(Recorder(), characters)
    good, bad = await asyncio.gather(passes.embed(["one", "two"]), passes.embed(["x", "bad"]), return_exceptions=True)
    assert good.tolist() == rows(["one", "two"])  # type: ignore[union-attr]
    assert str(bad) == "text 2 is bad"


async def test_a_failure_of_the_machine_is_everybodys_and_the_next_pass_works() -> None:
    passes = Passes(Recorder(), characters)
    failed = await asyncio.gather(passes.embed(["one"]), passes.embed(["broken"]), return_exceptions=True)
    assert [type(error) for error in failed] == [MachineError, MachineError]
    assert (await passes.embed(["one"])).tolist() == rows(["one"])


async def test_callers_who_want_other_things_of_long_texts_share_no_pass() -> None:
    record = Recorder()
    passes = Passes(record, characters)
    await asyncio.gather(passes.embed(["one"]), passes.embed(["two"], "split"), passes.embed(["three"], "truncate"))
    assert dict(zip(map(tuple, record.passes), record.choices, strict=True)) == {
        ("one",): None,
        ("two",): "split",
        ("three",): "truncate",
    }


async def test_progress_is_each_callers_own_and_may_fail() -> None:
    passes, counts = Passes(Recorder(), characters), list[int]()

    def failing(_: int) -> None:
        raise ValueError("the caller's own")

    texts = [f"text {number}" for number in range(100)]
    mine, other = await asyncio.gather(
        passes.embed(texts, None, counts.append), passes.embed(texts, None, failing), return_exceptions=True
    )
    assert sum(counts) == len(mine) == 100  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the caller's own"):
        raise other  # type: ignore[misc]
