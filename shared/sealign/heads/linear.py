"""A linear classifier head: logits = xW + b."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.errors import InvalidInputError

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Logits (n, classes) of embeddings (n, dimension).

    Attributes:
        weight: (dimension, classes), float64, read-only.
        bias: (classes,), float64, read-only.
        labels: one distinct, non-empty name a class, at least two.

    Raises:
        InvalidInputError: shapes that do not fit together, numbers that are not finite, too few or
            repeated labels.
    """

    weight: Matrix
    bias: Matrix
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        weight = np.array(self.weight, dtype=np.float64)
        bias = np.array(self.bias, dtype=np.float64)
        labels = tuple(self.labels)
        if weight.ndim != 2 or not weight.size or bias.shape != weight.shape[1:]:
            raise InvalidInputError(
                f"a head needs a weight (dimension, classes) and a bias (classes,), not {weight.shape} and {bias.shape}"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InvalidInputError("the head holds numbers that are not finite")
        if not all(isinstance(label, str) and label for label in labels):
            raise InvalidInputError("a head's labels must be non-empty strings")
        repeated = sorted(label for label, count in Counter(labels).items() if count > 1)
        if repeated:
            raise InvalidInputError(f"a head's labels must be distinct; repeated: {repeated}")
        if len(labels) < 2:
            raise InvalidInputError(f"a head needs at least two classes, not {len(labels)}")
        if len(labels) != len(bias):
            raise InvalidInputError(f"{len(labels)} labels do not name {len(bias)} outputs; give one label an output")
        weight.flags.writeable = bias.flags.writeable = False
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "labels", labels)

    @property
    def dimension(self) -> int:
        return int(self.weight.shape[0])

    def logits(self, X: ArrayLike) -> Matrix:
        """xW + b for each row: (n, dimension) to (n, classes).

        Raises:
            InvalidInputError: wrong shape, or numbers that are not finite.
        """
        x = checked_rows(X)
        if x.shape[1] != self.dimension:
            raise InvalidInputError(f"embeddings have shape {x.shape}; the head takes (rows, {self.dimension})")
        result: Matrix = x @ self.weight + self.bias
        return result

    def scaled(self, factor: float) -> LinearHead:
        """Return the head whose logits are ``factor`` times these; 1/T divides by a temperature T."""
        return LinearHead(self.weight * factor, self.bias * factor, self.labels)

    def composed(self, weight: ArrayLike, intercept: ArrayLike) -> LinearHead:
        """The head that takes source embeddings, given the affine map into this head's space.

        (xM + m)W + b = x(MW) + (mW + b), so one product does both (Gorbett and Jana, arXiv
        2603.18908: the map and the head are both linear).

        Args:
            weight: M, (source dimension, dimension).
            intercept: m, (dimension,).

        Raises:
            InvalidInputError: shapes that do not fit this head.
        """
        M, m = np.asarray(weight, dtype=np.float64), np.asarray(intercept, dtype=np.float64)
        if M.ndim != 2 or M.shape[1] != self.dimension or m.shape != (self.dimension,):
            raise InvalidInputError(
                f"a map of shapes {M.shape} and {m.shape} does not lead into the head's {self.dimension} dimensions"
            )
        return LinearHead(M @ self.weight, m @ self.weight + self.bias, self.labels)


def checked_rows(X: ArrayLike) -> Matrix:
    """Embeddings as a finite float64 matrix with at least one row.

    Raises:
        InvalidInputError: anything else.
    """
    try:
        x = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError("embeddings are not an array of real numbers") from None
    if x.ndim != 2 or not x.size:
        raise InvalidInputError(f"embeddings have shape {x.shape}; expected (rows, dimension)")
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        raise InvalidInputError(f"{bad.size} embeddings are not finite, the first is row {bad[0]}; check the encoder")
    return x


def class_indices(labels: Sequence[str], classes: Sequence[str], rows: int) -> NDArray[np.intp]:
    """Each row's class as an index into ``classes``: (rows,).

    Raises:
        InvalidInputError: a number of labels other than ``rows``, or labels outside ``classes``.
    """
    if len(labels) != rows:
        raise InvalidInputError(f"{len(labels)} labels meet {rows} embeddings; give one a row")
    index = {label: number for number, label in enumerate(classes)}
    unknown = sorted({str(label) for label in labels if label not in index})
    if unknown:
        raise InvalidInputError(f"labels that are not classes of the head: {unknown[:10]}")
    return np.array([index[label] for label in labels], dtype=np.intp)
