"""Votes of private texts, and what survives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealign.errors import InvalidInputError
from sealign.synthetic import Candidates, Evolution
from sealign.synthetic.evolution import vote_counts

POOL, WIDTH = 400, 16


def unit(count: int, seed: int, towards: float = 0.0) -> NDArray[np.float32]:
    """Rows of unit norm, more or less in the first direction."""
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH))
    rows[:, 0] += towards
    normalised: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return normalised


class Texts:
    """A world of numbered texts, each with a row."""

    def __init__(self) -> None:
        self.rows = unit(3000, seed=1)
        self.pool = Candidates(tuple(f"text {n}" for n in range(POOL)), self.rows[:POOL])
        self.shown: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.rows[[int(text.split()[1]) for text in texts]]

    def write(self, examples: Sequence[Sequence[str]], progress: Callable[[int], None]) -> list[str]:
        """Return texts that are not in the pool: the nearest to each group's first."""
        self.shown += [text for group in examples for text in group]
        progress(len(examples))
        others = self.rows[POOL:]
        return [f"text {POOL + int(np.argmax(others @ self.embed(group[:1])[0]))}" for group in examples]


@contextmanager
def steps(what: str, count: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 1000), st.data())
def test_one_text_more_or_less_changes_one_count_by_one(
    texts: int, candidates: int, seed: int, data: st.DataObject
) -> None:
    """So the histogram's sensitivity is 1, in L1 and in L2, which is what the noise is scaled to."""
    private, among = unit(texts, seed), unit(candidates, seed + 1)
    counts = vote_counts(private, among)
    assert counts.sum() == texts
    without = np.delete(private, data.draw(st.integers(0, texts - 1)), axis=0)
    change = counts - vote_counts(without, among)
    assert np.abs(change).sum() == np.linalg.norm(change) == 1


def test_what_survives_is_like_the_private_texts() -> None:
    world, private = Texts(), unit(2000, seed=7, towards=4.0)
    survivors = Evolution(world.pool, world.embed, None, scale=2.0, rounds=2, count=20).texts(private, steps)
    assert len(set(survivors)) == 20
    assert set(survivors) <= set(world.pool.texts)
    assert world.embed(survivors)[:, 0].mean() > world.pool.rows[:, 0].mean() + 0.25


def test_noise_hides_what_few_votes_say() -> None:
    """A text with all votes of three private ones is chosen without noise, and is one of many with much."""
    world = Texts()
    private = np.repeat(world.rows[3:4], 3, axis=0)
    chosen = [Evolution(world.pool, world.embed, None, 0.25, 1, 1).texts(private, steps)[0] for _ in range(20)]
    assert chosen.count("text 3") == 20
    chosen = [Evolution(world.pool, world.embed, None, 50.0, 1, 1).texts(private, steps)[0] for _ in range(20)]
    assert chosen.count("text 3") < 10


def test_a_writer_sees_survivors_and_only_its_texts_are_shared() -> None:
    world, private = Texts(), unit(2000, seed=7, towards=4.0)
    evolution = Evolution(world.pool, world.embed, world.write, 2.0, rounds=3, count=20, written=60)
    survivors = evolution.texts(private, steps)
    assert survivors
    assert not set(survivors) & set(world.pool.texts)
    assert set(survivors) <= {f"text {n}" for n in range(POOL, 3000)}
    assert world.embed(list(dict.fromkeys(world.shown)))[:, 0].mean() > 0.2
    assert world.embed(survivors)[:, 0].mean() > 0.25


def test_a_writer_that_writes_nothing_is_refused() -> None:
    world = Texts()

    def silent(examples: Sequence[Sequence[str]], progress: Callable[[int], None]) -> list[str]:
        return []

    with pytest.raises(InvalidInputError, match="none of the texts that the model wrote"):
        Evolution(world.pool, world.embed, silent, 1.0, rounds=2, count=20).texts(unit(50, 2), steps)


def test_too_few_rounds_or_public_texts_are_refused() -> None:
    world = Texts()
    with pytest.raises(InvalidInputError, match="rounds are too few"):
        Evolution(world.pool, world.embed, world.write, 1.0, rounds=1)
    with pytest.raises(InvalidInputError, match="public texts are too few"):
        Evolution(world.pool, world.embed, None, 1.0, count=POOL)
