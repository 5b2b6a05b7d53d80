"""All that a method may look at: one pair, one dataset, one public set, one seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, RidgeStatistics, fit_ridge
from sealign.heads import TrainedHead

Rows = NDArray[np.float32]


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
        test: the client's texts (client's rows: the client, which may adapt to them; silo's rows: nobody).
        test_labels: for measuring, never for fitting (nobody).
        few: training texts released without labels, in a random order (each side its own).
        exposure: public texts of another kind than the task's (each side its own); may be empty.
        outliers: for measuring, never for fitting (nobody); may be empty.
        description: of the task, one text or none (each side its own).
        silo_head: trained on the silo's rows and labels (the silo).
        seed: of all that is random.
    """

    public: Sides
    train: Sides
    train_labels: tuple[str, ...]
    test: Sides
    test_labels: tuple[str, ...]
    few: Sides
    exposure: Sides
    outliers: Sides
    description: Sides
    silo_head: TrainedHead
    seed: int

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
    def ridge(self) -> AffineMap:
        """The plain map: ridge regression over the public texts."""
        return ridge_map(self.public)

    def with_public(self, public: Sides) -> PairContext:
        """The same with other public texts."""
        return replace(self, public=public)


def ridge_map(public: Sides) -> AffineMap:
    """The map that plain alignment learns over these texts.

    Raises:
        InvalidInputError: too few texts, or embeddings that are all the same.
    """
    statistics = RidgeStatistics(public.client.shape[1], public.silo.shape[1])
    statistics.update(public.client, public.silo)
    return fit_ridge(statistics, source_fingerprint="client", target_fingerprint="silo", public_set="public")
