"""What a silo makes of its labelled embeddings, whatever the public texts; computed once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import MappedChannel
from sealign.defaults import HELD_OUT, OOD_DIRECTIONS
from sealign.heads import (
    CalibratedHead,
    ClassStatistics,
    LinearHead,
    TaskProfile,
    TrainedHead,
    class_indices,
    head_behind,
    measure_task,
    retrain_head,
    stratified_hold_out,
    train_head,
)

_STRONGER = tuple(10.0 ** (k / 2) for k in (4, 3, 2, 1, 0))


@dataclass(frozen=True, eq=False)
class SiloTask:
    """A silo's labelled embeddings.

    Attributes:
        rows: (n, d).
        labels: one a row.
        seed: of the splits.
        outliers: embeddings of texts of another kind, (m, d); None for a task without a class of outliers.
    """

    rows: NDArray[np.float32]
    labels: tuple[str, ...]
    seed: int
    outliers: NDArray[np.float32] | None = None
    _refitted: dict[float, LinearHead] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def trained(self) -> TrainedHead:
        """The head of the silo's own space."""
        return train_head(self.rows, self.labels, seed=self.seed)

    @property
    def head(self) -> LinearHead:
        return self.trained.head

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Of all rows, (d,)."""
        mean: NDArray[np.float64] = self.rows.mean(axis=0, dtype=np.float64)
        return mean

    @cached_property
    def statistics(self) -> ClassStatistics:
        """Of the rows that are not held out."""
        return ClassStatistics.of(self.rows[~self._held], _where(self.labels, ~self._held), self.head.labels)

    @cached_property
    def held_out(self) -> tuple[NDArray[np.float32], list[str]]:
        """A fifth of each class's rows, and their labels."""
        return self.rows[self._held], _where(self.labels, self._held)

    @cached_property
    def stronger(self) -> dict[float, LinearHead]:
        """Heads of the remaining rows by penalty: that of the silo's own head, up to a hundred times it, first."""
        rows, labels = self.rows[~self._held], _where(self.labels, ~self._held)
        return {penalty: self._fit(rows, labels, penalty) for penalty in map(self._own_penalty.__mul__, _STRONGER)}

    def refitted(self, penalty: float) -> LinearHead:
        """A head of all rows with this penalty."""
        if penalty == self._own_penalty:
            return self.head
        if penalty not in self._refitted:
            self._refitted[penalty] = self._fit(self.rows, self.labels, penalty)
        return self._refitted[penalty]

    def head_behind(self, channel: MappedChannel) -> CalibratedHead:
        """As a silo fits it to a map."""
        return head_behind(channel, self.head, self.profile, directions=OOD_DIRECTIONS)

    @cached_property
    def profile(self) -> TaskProfile:
        """What a silo measures once of its rows."""

        def train(some: NDArray[np.float64], named: Sequence[str]) -> LinearHead:
            return self._fit(some, named, self._own_penalty)

        return measure_task(
            self.rows, self.labels, self.head, train, outliers=self.outliers, directions=OOD_DIRECTIONS, seed=self.seed
        )

    @property
    def _own_penalty(self) -> float:
        return float(self.trained.penalty or 0.0)

    @cached_property
    def _held(self) -> NDArray[np.bool_]:
        targets = class_indices(self.labels, self.head.labels, len(self.rows))
        return stratified_hold_out(targets, self.head.labels, HELD_OUT, self.seed)

    def _fit(self, rows: NDArray[Any], labels: Sequence[str], penalty: float) -> LinearHead:
        return retrain_head(rows, labels, classes=self.head.labels, penalty=penalty, seed=self.seed)


def _where(labels: Sequence[str], mask: NDArray[np.bool_]) -> list[str]:
    return [label for label, chosen in zip(labels, mask, strict=True) if chosen]
