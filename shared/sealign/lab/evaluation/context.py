"""All that a method may look at: one pair, one dataset, one public set, one seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.alignment import AffineMap, MappedChannel, RidgeStatistics, fit_map, fit_ridge, weigh_shared
from sealign.alignment.families import ScoredCandidate, score_families
from sealign.errors import InvalidInputError
from sealign.heads import CalibratedHead
from sealign.lab.evaluation.task import SiloTask

Rows = NDArray[np.float32]


class _Names(TypedDict):
    source_fingerprint: str
    target_fingerprint: str
    public_set: str


NAMES = _Names(source_fingerprint="client", target_fingerprint="silo", public_set="public")
"""Of maps that are never kept."""


@dataclass(frozen=True, eq=False)
class Sides:
    """Embeddings of the same texts by both encoders.

    Attributes:
        client: (n, client's dimension).
        silo: (n, silo's dimension).
    """

    client: Rows
    silo: Rows

    def __len__(self) -> int:
        return len(self.client)

    def first(self, count: int) -> Sides:
        """The first rows."""
        return Sides(self.client[:count], self.silo[:count])

    def joined(self, other: Sides) -> Sides:
        """These rows and the other ones."""
        return Sides(np.concatenate([self.client, other.client]), np.concatenate([self.silo, other.silo]))


@dataclass(frozen=True, eq=False)
class PairContext:
    """What a method fits on. Who would hold it, in a real silo, is in brackets.

    Attributes:
        public: the public texts (each side its own).
        train: the training texts (silo's rows: the silo; client's rows: nobody, for upper references only).
        train_labels: their labels (the silo).
        unseen: texts like the training texts that no side fits to, for measuring (nobody).
        unseen_labels: theirs (nobody).
        test: the client's texts (client's rows: the client, which may adapt to them; silo's rows: nobody).
        test_labels: for measuring, never for fitting (nobody).
        few: training texts released without labels, in a random order (each side its own).
        exposure: public texts of another kind than the task's (each side its own); may be empty.
        outliers: for measuring, never for fitting (nobody); may be empty.
        description: of the task, one text or none (each side its own).
        task: what the silo's rows and labels give (the silo).
        seed: of all that is random.
        names: of the labels, which a silo shares with every client (each side its own); may be empty.
        synthetic: texts that stand for the task's, without those among the public ones; None where none were made.
        released: how many of the public texts, the last of them, are the task's: names and texts of it.
    """

    public: Sides
    train: Sides
    train_labels: tuple[str, ...]
    unseen: Sides
    unseen_labels: tuple[str, ...]
    test: Sides
    test_labels: tuple[str, ...]
    few: Sides
    exposure: Sides
    outliers: Sides
    description: Sides
    task: SiloTask
    seed: int
    names: Sides
    synthetic: Sides | None = None
    released: int = 0
    _few_shot: dict[int, PairContext] = field(default_factory=dict, init=False, repr=False)
    _smaller: dict[int, PairContext] = field(default_factory=dict, init=False, repr=False)

    @property
    def X(self) -> Rows:  # noqa: N802
        """The client's embeddings of the public texts."""
        return self.public.client

    @property
    def Y(self) -> Rows:  # noqa: N802
        """The silo's embeddings of the public texts."""
        return self.public.silo

    @property
    def queries(self) -> Rows:
        """The client's embeddings of its own texts, without labels."""
        return self.test.client

    @cached_property
    def statistics(self) -> RidgeStatistics:
        """Of the public texts, released ones weighed."""
        if not self.released:
            return _statistics(self.X, self.Y)
        first = len(self.X) - self.released
        public, released = (_statistics(self.X[part], self.Y[part]) for part in (slice(first), slice(first, None)))
        return weigh_shared(public, released)[0]

    @cached_property
    def ridge(self) -> AffineMap:
        """The plain map: ridge regression over the public texts."""
        return fit_ridge(self.statistics, **NAMES)

    @cached_property
    def head_behind_ridge(self) -> CalibratedHead:
        """The head that a silo would serve behind the plain map."""
        return self.task.head_behind(channel_of(self.ridge))

    def weighted_statistics(self, weights: NDArray[np.float64]) -> RidgeStatistics:
        """Of the public texts, each with its weight, (n,)."""
        return _statistics(self.X, self.Y, weights)

    @cached_property
    def chosen_map(self) -> AffineMap:
        """The best map over the public texts, of all families."""
        return fit_map(self.statistics, **NAMES)

    @cached_property
    def candidates(self) -> tuple[ScoredCandidate, ...]:
        """Maps of all families."""
        return score_families(self.statistics)

    def with_first(self, count: int) -> PairContext:
        """The same with so many of the public texts."""
        return self._smaller.setdefault(count, replace(self, public=self.public.first(count)))

    def with_few_shot(self, count: int) -> PairContext:
        """The same with so many of the released texts among the public ones."""
        if count not in self._few_shot:
            self._few_shot[count] = self._joined(self.few.first(count))
        return self._few_shot[count]

    @cached_property
    def with_synthetic(self) -> PairContext:
        """The same with the synthetic texts among the public ones."""
        if self.synthetic is None:
            raise InvalidInputError("no synthetic texts were made")
        return self._joined(self.synthetic)

    @cached_property
    def named(self) -> PairContext:
        """The same with the names of the labels among the public texts."""
        return self._joined(self.names) if len(self.names) else self

    def _joined(self, shared: Sides) -> PairContext:
        return replace(self, public=self.public.joined(shared), released=self.released + len(shared))


def _statistics(X: Rows, Y: Rows, weights: ArrayLike = 1.0) -> RidgeStatistics:
    statistics = RidgeStatistics(X.shape[1], Y.shape[1])
    statistics.update(X, Y, weights)
    return statistics


def channel_of(learned: AffineMap, Y: Rows | None = None) -> MappedChannel:
    """The channel of a map; of one learned under encryption, from its covariances and the public texts' ``Y``.

    Raises:
        InvalidInputError: the map has neither.
    """
    if learned.channel is not None:
        return learned.channel
    if learned.covariances is None or Y is None:
        raise InvalidInputError("the map has no channel; learn it from both sides' embeddings")
    return MappedChannel.of_covariances(Y, learned.covariances)
