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
    """How to read a row of outputs: C class logits, then r directions.

    Attributes:
        classes: C.
        reject: whether logits are log-odds against a class of outliers, whose own logit is zero.
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
        return self.classes + self.directions

    def logits(self, outputs: ArrayLike) -> Matrix:
        """Class logits, (n, C), of outputs, (n, C + r).

        Raises:
            InvalidInputError: wrong shape.
        """
        array = np.asarray(outputs, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != self.outputs:
            raise InvalidInputError(f"outputs have shape {array.shape}; expected (rows, {self.outputs})")
        return array[:, : self.classes]

    def cooled(self, outputs: ArrayLike, temperature: float) -> Matrix:
        """Divide the class logits of outputs, (n, C + r), by a temperature. The directions stay."""
        array = np.array(outputs, dtype=np.float64)
        array[:, : self.classes] /= temperature
        return array

    def scores(self, outputs: ArrayLike) -> dict[str, Matrix]:
        """Out-of-distribution scores by name, (n,) each, larger for in-distribution texts.

        Beside those of :data:`sealign.heads.ood.SCORES`: ``reject_margin``, by how much the largest class logit
        exceeds the outliers' (the largest logit, since theirs is zero), and ``mahalanobis``, minus the squared length
        of the r coordinates. The first is the one to decide by.

        Raises:
            InvalidInputError: wrong shape.
        """
        logits = self.logits(outputs)
        scores: dict[str, Matrix] = {}
        if self.reject:
            scores["reject_margin"] = logits.max(axis=1)
        scores |= {name: score(logits) for name, score in SCORES.items()}
        if self.directions:
            scores["mahalanobis"] = -np.sum(np.asarray(outputs, dtype=np.float64)[:, self.classes :] ** 2, axis=1)
        return scores


@dataclass(frozen=True, eq=False)
class ServedHead:
    """A linear head and the directions beside it.

    Attributes:
        head: class logits.
        reject: as in :class:`OutputLayout`.
        directions: (d, r), float64.
        offsets: (r,), of the coordinates in these directions.

    Raises:
        InvalidInputError: shapes that do not fit together, or numbers that are not finite.
    """

    head: LinearHead
    reject: bool = False
    directions: Matrix | None = None
    offsets: Matrix = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        given = np.empty((self.head.dimension, 0)) if self.directions is None else self.directions
        directions, offsets = (np.asarray(array, dtype=np.float64) for array in (given, self.offsets))
        if directions.ndim != 2 or len(directions) != self.head.dimension or offsets.shape != directions.shape[1:]:
            raise InvalidInputError(
                f"directions {directions.shape} and offsets {offsets.shape} do not fit a head of "
                f"{self.head.dimension} dimensions"
            )
        if not (np.isfinite(directions).all() and np.isfinite(offsets).all()):
            raise InvalidInputError("the head's directions hold numbers that are not finite")
        object.__setattr__(self, "directions", directions)
        object.__setattr__(self, "offsets", offsets)

    @property
    def layout(self) -> OutputLayout:
        """How to read a row of :meth:`outputs`."""
        return OutputLayout(len(self.head.labels), self.reject, len(self.offsets))

    @property
    def weight(self) -> Matrix:
        """Of all outputs, (d, C + r)."""
        return np.concatenate([self.head.weight, self._directions], axis=1)

    @property
    def bias(self) -> Matrix:
        """Of all outputs, (C + r,)."""
        return np.concatenate([self.head.bias, self.offsets])

    @property
    def _directions(self) -> Matrix:
        return np.asarray(self.directions)

    def outputs(self, X: ArrayLike) -> Matrix:
        """All outputs, (n, C + r), of embeddings, (n, d).

        Raises:
            InvalidInputError: wrong shape, or numbers that are not finite.
        """
        logits = self.head.logits(X)
        return np.concatenate([logits, np.asarray(X, dtype=np.float64) @ self._directions + self.offsets], axis=1)

    def composed(self, weight: ArrayLike, intercept: ArrayLike) -> ServedHead:
        """The same for source embeddings, given the affine map into this head's space; see `LinearHead.composed`.

        Raises:
            InvalidInputError: shapes that do not fit this head.
        """
        head = self.head.composed(weight, intercept)
        M, m = np.asarray(weight, dtype=np.float64), np.asarray(intercept, dtype=np.float64)
        return ServedHead(head, self.reject, M @ self._directions, m @ self._directions + self.offsets)

    def cooled(self, temperature: float) -> ServedHead:
        """Divide the logits by a temperature. The directions stay."""
        return ServedHead(self.head.scaled(1.0 / temperature), self.reject, self.directions, self.offsets)
