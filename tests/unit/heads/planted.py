"""Gaussian classes with one covariance, and a map's channel, for which the best heads are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import MappedChannel, RidgeStatistics, fit_ridge

Matrix = NDArray[np.float64]

DIMENSION, CLASSES = 6, ("a", "b", "c")


class Planted:
    """Three classes in six dimensions; public text is wider and lies elsewhere."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.means = random.normal(size=(3, DIMENSION))
        self._root = np.tril(random.normal(size=(DIMENSION, DIMENSION))) * 0.3 + 0.4 * np.eye(DIMENSION)
        self.covariance: Matrix = self._root @ self._root.T

    def rows(self, count: int, seed: int) -> tuple[Matrix, list[str]]:
        random = np.random.default_rng(seed)
        targets = random.integers(3, size=count)
        return self.means[targets] + random.normal(size=(count, DIMENSION)) @ self._root.T, [
            CLASSES[target] for target in targets
        ]

    @staticmethod
    def public(count: int, seed: int) -> Matrix:
        return np.asarray(2.0 + 2.0 * np.random.default_rng(seed).normal(size=(count, DIMENSION)))

    def channel(self, noise: float = 1.0) -> tuple[MappedChannel, Matrix]:
        """Of a ridge map from a noisy view of eight dimensions; and the view."""
        random = np.random.default_rng(5)
        view = random.normal(size=(DIMENSION, 8))
        y = self.public(3000, 6)
        x = y @ view + noise * random.normal(size=(len(y), 8))
        statistics = RidgeStatistics(8, DIMENSION)
        statistics.update(x, y)
        learned = fit_ridge(statistics, source_fingerprint="s", target_fingerprint="t", public_set="p")
        assert learned.channel is not None
        return learned.channel, view @ learned.weight
