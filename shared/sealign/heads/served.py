"""What the silo computes under encryption: class logits, and further linear outputs that tell outliers apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.errors import InvalidInputError
from sealign.heads.linear import LinearHead
from sealign.heads.ood import SCORES

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class OutputLayout:
    """How to read a row of outputs: C class logits, then a reject column if there is one, then r directions.

    Attributes:
        classes: C.
        reject: whether output C is the outliers' logit.
        directions: r, coordinates of the linear Mahalanobis score.

    Raises:
        InvalidInputError: fewer than two classes or a negative number of directions.
    """

    classes: int
    reject: bool = False
    directions: int = 0

    def __post_init__(self) -> None:
        if self.classes < 2 or self.directions < 0:
            raise InvalidInputError(
                f"outputs need at least 2 classes and at least 0 directions, not {self.classes} and {self.directions}"
            )

    @property
    def outputs(self) -> int:
        """Number of outputs of a row."""
        return self.classes + self.reject + self.directions

    def logits(self, outputs: ArrayLike) -> Matrix:
        """Class logits, (n, C), of outputs, (n, C + reject + r).

        Raises:
            InvalidInputError: wrong shape.
        """
        array = np.asarray(outputs, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != self.outputs:
            raise InvalidInputError(f"outputs have shape {array.shape}; expected (rows, {self.outputs})")
        return array[:, : self.classes]

    def scores(self, outputs: ArrayLike) -> dict[str, Matrix]:
        """Out-of-distribution scores by name, (n,) each, larger for in-distribution texts.

        Beside those of :data:`sealign.heads.ood.SCORES`: ``reject_margin``, by how much the largest class logit
        exceeds the outliers', and ``mahalanobis``, minus the squared length of the r coordinates. The first is the
        one to decide by.

        Raises:
            InvalidInputError: wrong shape.
        """
        logits = self.logits(outputs)
        array = np.asarray(outputs, dtype=np.float64)
        scores: dict[str, Matrix] = {}
        if self.reject:
            scores["reject_margin"] = logits.max(axis=1) - array[:, self.classes]
        scores |= {name: score(logits) for name, score in SCORES.items()}
        if self.directions:
            scores["mahalanobis"] = -np.sum(array[:, self.outputs - self.directions :] ** 2, axis=1)
        return scores


@dataclass(frozen=True, eq=False)
class ServedHead:
    """A linear head and the further columns beside it.

    Attributes:
        head: class logits.
        reject, directions: as in :class:`OutputLayout`.
        extra_weight: (d, reject + r).
        extra_bias: (reject + r,).

    Raises:
        InvalidInputError: shapes that do not fit together, or numbers that are not finite.
    """

    head: LinearHead
    reject: bool = False
    directions: int = 0
    extra_weight: Matrix = field(default_factory=lambda: np.empty((0, 0)))
    extra_bias: Matrix = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        extra = int(self.reject) + self.directions
        weight = np.asarray(self.extra_weight, dtype=np.float64)
        bias = np.asarray(self.extra_bias, dtype=np.float64)
        if not weight.size and not extra:
            weight = np.empty((self.head.dimension, 0))
        if weight.shape != (self.head.dimension, extra) or bias.shape != (extra,):
            raise InvalidInputError(
                f"{extra} further outputs of a head of {self.head.dimension} dimensions have a weight {weight.shape} "
                f"and a bias {bias.shape}, which do not fit"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InvalidInputError("the head's further outputs hold numbers that are not finite")
        object.__setattr__(self, "extra_weight", weight)
        object.__setattr__(self, "extra_bias", bias)

    @property
    def layout(self) -> OutputLayout:
        """How to read a row of :meth:`outputs`."""
        return OutputLayout(len(self.head.labels), self.reject, self.directions)

    @property
    def weight(self) -> Matrix:
        """Of all outputs, (d, outputs)."""
        return np.concatenate([self.head.weight, self.extra_weight], axis=1)

    @property
    def bias(self) -> Matrix:
        """Of all outputs, (outputs,)."""
        return np.concatenate([self.head.bias, self.extra_bias])

    def outputs(self, X: ArrayLike) -> Matrix:
        """All outputs, (n, outputs), of embeddings, (n, d).

        Raises:
            InvalidInputError: wrong shape, or numbers that are not finite.
        """
        logits = self.head.logits(X)
        further = np.asarray(X, dtype=np.float64) @ self.extra_weight + self.extra_bias
        return np.concatenate([logits, further], axis=1)

    def composed(self, weight: ArrayLike, intercept: ArrayLike) -> ServedHead:
        """The same for source embeddings, given the affine map into this head's space; see `LinearHead.composed`.

        Raises:
            InvalidInputError: shapes that do not fit this head.
        """
        head = self.head.composed(weight, intercept)
        M, m = np.asarray(weight, dtype=np.float64), np.asarray(intercept, dtype=np.float64)
        return ServedHead(
            head, self.reject, self.directions, M @ self.extra_weight, m @ self.extra_weight + self.extra_bias
        )

    def cooled(self, temperature: float) -> ServedHead:
        """Logits and reject column divided by a temperature; the directions stay."""
        scale = np.ones(len(self.extra_bias))
        scale[: int(self.reject)] = 1.0 / temperature
        head = LinearHead(self.head.weight / temperature, self.head.bias / temperature, self.head.labels)
        return ServedHead(head, self.reject, self.directions, self.extra_weight * scale, self.extra_bias * scale)
