"""Private evolution: candidates that private texts vote for survive, and new ones are made of those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError
from sealign.synthetic.privacy import noisy

Rows: TypeAlias = NDArray[np.float32]
Steps: TypeAlias = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows a stage of so many steps; entered, it gives the function that is told of each."""

_FIRST = 1024
"""Public texts in the first vote."""
_NEIGHBOURS = 5
"""Public texts that join a survivor."""
_EXAMPLES = 5
"""Survivors that a model is shown for each text that it writes, of the nearest ten of one."""
_SLICE = 2048


class Writer(Protocol):
    """Writes texts like others."""

    def __call__(self, examples: Sequence[Sequence[str]], progress: Callable[[int], None]) -> list[str]:
        """Return at most one text for each group of examples; the progress is told of groups."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Distinct texts, none of them private, and their rows, (n, d), of unit norm."""

    texts: tuple[str, ...]
    rows: Rows

    def chosen(self, indices: NDArray[np.intp]) -> Candidates:
        """Return those of the indices, in their order."""
        return Candidates(tuple(self.texts[index] for index in indices), self.rows[indices])

    def joined(self, other: Candidates) -> Candidates:
        """Return these and those of the other that are not among them."""
        known = set(self.texts)
        new = np.array([row for row, text in enumerate(other.texts) if text not in known], dtype=np.intp)
        added = other.chosen(new)
        return Candidates(self.texts + added.texts, np.concatenate([self.rows, added.rows]))


@dataclass(frozen=True, eq=False)
class Evolution:
    """Rounds of votes.

    Private texts touch nothing but the counts of votes, which are noised before anything looks at them.

    Attributes:
        pool: public texts, in a random order.
        embed: gives texts their rows, in the space of the private ones.
        writer: a language model; None where public texts alone are candidates.
        scale: of the noise on each count.
        rounds: of votes, at least two with a writer.
        count: texts that survive the last one.
        written: texts that the writer is asked for after each round but the last.
        seed: for what is shown to the writer; it protects nothing.

    Raises:
        InvalidInputError: too few rounds or public texts.
    """

    pool: Candidates
    embed: Callable[[Sequence[str]], Rows]
    writer: Writer | None
    scale: float
    rounds: int = 3
    count: int = 128
    written: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < (1 if self.writer is None else 2):
            raise InvalidInputError(f"{self.rounds} rounds are too few; give two where a model writes, else one")
        if self.count < 1 or len(self.pool.texts) < 2 * self.count:
            raise InvalidInputError(
                f"{len(self.pool.texts)} public texts are too few to choose {self.count} of; give twice as many"
            )

    def texts(self, private: Rows, steps: Steps) -> tuple[str, ...]:
        """Return what survives the votes of private rows, (n, d), at most as many as wanted.

        Without a writer these are public texts. With one, they are the written texts among the survivors: public ones
        lead the writer and compete, but a client that aligns over them already would gain nothing.
        """
        draw = np.random.default_rng(self.seed)
        survivors = self._survivors(private, self.pool.chosen(np.arange(min(_FIRST, len(self.pool.texts)))))
        for number in range(1, self.rounds):
            candidates = survivors.joined(self._neighbours(survivors))
            if self.writer is not None:
                groups = _groups(survivors, self.written, draw)
                with steps(f"writing, round {number} of {self.rounds - 1}", len(groups)) as advance:
                    new = tuple(dict.fromkeys(self.writer(groups, advance)))
                if new:
                    candidates = candidates.joined(Candidates(new, self.embed(new)))
            survivors = self._survivors(private, candidates)
        if self.writer is None:
            return survivors.texts
        public = set(self.pool.texts)
        written = tuple(text for text in survivors.texts if text not in public)
        if not written:
            raise InvalidInputError(
                "none of the texts that the model wrote was chosen; name another model, or share public texts by "
                "leaving it out"
            )
        return written

    def _survivors(self, private: Rows, candidates: Candidates) -> Candidates:
        counts = noisy(vote_counts(private, candidates.rows), self.scale)
        return candidates.chosen(np.argsort(-counts, kind="stable")[: self.count])

    def _neighbours(self, survivors: Candidates) -> Candidates:
        """Return the public texts nearest to survivors."""
        near = np.argsort(-(survivors.rows @ self.pool.rows.T), axis=1)[:, : _NEIGHBOURS + 1]
        return self.pool.chosen(np.unique(near))


def vote_counts(private: Rows, candidates: Rows) -> NDArray[np.int64]:
    """Return for how many private rows, (n, d), each candidate, (m, d), is the nearest: (m,), n in all.

    Each row has one vote, for the candidate of the largest inner product, the first of equals.
    """
    counts = np.zeros(len(candidates), np.int64)
    for start in range(0, len(private), _SLICE):
        nearest = np.argmax(private[start : start + _SLICE] @ candidates.T, axis=1)
        counts += np.bincount(nearest, minlength=len(candidates))
    return counts


def _groups(survivors: Candidates, count: int, draw: np.random.Generator) -> list[list[str]]:
    """Return groups of survivors that are near to each other, each group around one of them."""
    centres = draw.integers(len(survivors.texts), size=count)
    near = np.argsort(-(survivors.rows[centres] @ survivors.rows.T), axis=1)[:, : 2 * _EXAMPLES]
    return [[survivors.texts[index] for index in draw.permutation(group)[:_EXAMPLES]] for group in near]
