"""What a method makes: outputs of a client's embeddings, one part in the clear, one under encryption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.ckks import PackingPlan, candidates, product_shape
from sealign.defaults import BATCH_BYTES, BATCH_ROWS
from sealign.heads import SCORES, LinearHead

Matrix = NDArray[np.float64]
Score = Callable[[Matrix], Matrix]


def as_it_is(rows: ArrayLike) -> Matrix:
    """A client that encrypts its embeddings."""
    return np.asarray(rows, dtype=np.float64)


@dataclass(frozen=True)
class Promise:
    """An accuracy that the silo's card tells before any text is classified, and its margin; None if it has none."""

    accuracy: float
    margin: float | None


@dataclass(frozen=True, eq=False)
class Classifier:
    """Outputs (n, classes + extra) = prepare(x)·W + b; the product is what runs under encryption.

    In silo placement rows are encrypted as they are and W holds the map and the head; in client placement
    ``prepare`` applies the map, and W is the head.

    Attributes:
        weight: W, (dimension, classes + extra).
        bias: b, (classes + extra,).
        labels: of the first outputs; outputs beyond them serve scores only.
        prepare: what the client does in the clear, (n, d) to (n, dimension).
        row_norm: longest row that is encrypted; longer ones are shortened to it.
        scores: out-of-distribution scores, from all outputs to (n,), larger for inliers.
        thresholds: of these scores, that 95 % of the task's texts should reach; those that are known.
        promise: None if the silo promises nothing.
    """

    weight: Matrix
    bias: Matrix
    labels: tuple[str, ...]
    prepare: Callable[[ArrayLike], Matrix] = as_it_is
    row_norm: float = 1.0
    scores: Mapping[str, Score] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    promise: Promise | None = None

    @classmethod
    def of(
        cls, head: LinearHead, prepare: Callable[[ArrayLike], Matrix] = as_it_is, row_norm: float = 1.0
    ) -> Classifier:
        """Of a head alone, with the scores that logits give."""
        return cls(head.weight, head.bias, head.labels, prepare, row_norm, dict(SCORES))

    def rows(self, X: ArrayLike) -> Matrix:
        """What the client encrypts, (n, dimension), of its embeddings (n, d)."""
        prepared = self.prepare(X)
        norms = np.linalg.norm(prepared, axis=1, keepdims=True)
        # Embeddings of norm one are so up to rounding.
        longest = self.row_norm * (1 + 1e-6)
        shortened: Matrix = np.where(norms > longest, prepared * (self.row_norm / np.maximum(norms, 1e-12)), prepared)
        return shortened

    def outputs(self, X: ArrayLike) -> Matrix:
        """Outputs (n, classes + extra) of the client's embeddings, in the clear."""
        result: Matrix = self.rows(X) @ self.weight + self.bias
        return result

    def logits(self, outputs: Matrix) -> Matrix:
        """The outputs that stand for classes, (n, classes)."""
        return outputs[:, : len(self.labels)]

    def plan(self, rows: int) -> PackingPlan:
        """The plan under which a silo would serve a batch of so many rows."""
        shape = product_shape(self.weight, self.bias, rows=min(rows, BATCH_ROWS[-1]), row_norm=self.row_norm)
        return candidates(shape, max_bytes=BATCH_BYTES)[0]
