"""Rows made alike in all directions before they are encrypted, which is free for the client.

A plan must hold the longest row times the longest column of what the silo applies. Directions in which rows hardly
vary have long columns, and those in which they vary much have long rows. Whitened rows have neither, so the bound is
a tenth of what it was or less, and a smaller parameter set does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.encoders.encoder import Embeddings
from sealign.errors import InvalidInputError
from sealign.files import load_arrays, save_arrays

_SHRINKAGE = 1e-3
"""Share of the mean variance that is added in every direction."""
_AT_ONCE = 4096
"""Rows in memory as float64 at once."""
_FORMAT = "sealign.whitening/1"


@dataclass(frozen=True, eq=False)
class Whitening:
    """An affine change of coordinates, rows to rows.

    Attributes:
        mean: (d,), taken off.
        matrix: (d, d), symmetric, applied after.
    """

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]

    @classmethod
    def fit(cls, rows: Embeddings) -> Whitening:
        """Return the whitening of rows (n, d): the inverse square root of their covariance, shrunk a little.

        Raises:
            InvalidInputError: fewer than two rows, rows that are all the same, or rows that are not finite.
        """
        count, dimension = rows.shape
        total, squares = np.zeros(dimension), np.zeros((dimension, dimension))
        for start in range(0, count, _AT_ONCE):
            some = rows[start : start + _AT_ONCE].astype(np.float64)
            total += some.sum(axis=0)
        mean = total / max(count, 1)
        for start in range(0, count, _AT_ONCE):
            some = rows[start : start + _AT_ONCE].astype(np.float64) - mean
            squares += some.T @ some
        spread = np.trace(squares) / max(count, 1) / dimension
        if count < 2 or not np.isfinite(spread) or spread == 0:
            raise InvalidInputError(f"{count} rows of public text cannot be whitened; give more or longer texts")
        values, vectors = np.linalg.eigh(squares / count + _SHRINKAGE * spread * np.eye(dimension))
        return cls(mean, (vectors / np.sqrt(values)) @ vectors.T)

    def apply(self, rows: Embeddings) -> Embeddings:
        """Return whitened rows, (n, d)."""
        whitened = np.empty_like(rows, dtype=np.float32)
        for start in range(0, len(rows), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            whitened[some] = (rows[some].astype(np.float64) - self.mean) @ self.matrix
        return whitened

    def save(self, path: Path) -> None:
        """Keep it in a file.

        Raises:
            StorageError: the file could not be written.
        """
        save_arrays(path, {"mean": self.mean, "matrix": self.matrix}, {"format": _FORMAT})

    @classmethod
    def load(cls, path: Path) -> Whitening:
        """Return what :meth:`save` wrote.

        Raises:
            StorageError: the file is missing or damaged.
            InvalidInputError: it holds something else.
        """
        arrays, metadata = load_arrays(path)
        if metadata.get("format") != _FORMAT or {"mean", "matrix"} - arrays.keys():
            raise InvalidInputError(f"{path} holds no whitening. Delete it and align again.")
        return cls(arrays["mean"], arrays["matrix"])
