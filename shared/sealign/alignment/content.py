"""Simulated randomness of rows, drawn from their content: a row more or less changes that of no other.

So figures over a silo's rows move by what one row adds, and not because folds and noise of all rows have moved.
It protects nothing.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike, NDArray


def row_keys(rows: ArrayLike, seed: int = 0) -> NDArray[np.uint64]:
    """Return a number for each row, (n, d), that is a function of its content and the seed; shape (n,)."""
    key = seed.to_bytes(8, "little", signed=True)
    wide = np.ascontiguousarray(rows, dtype="<f8")
    digests = b"".join(blake2b(row.data, digest_size=8, key=key).digest() for row in wide)
    return np.frombuffer(digests, dtype="<u8")


def row_normals(rows: ArrayLike, seed: int = 0) -> NDArray[np.float32]:
    """Return independent standard normal numbers for each row, (n, d); equal rows get equal ones."""
    wide = np.asarray(rows)
    normals = np.empty(wide.shape, dtype=np.float32)
    for key, into in zip(row_keys(wide, seed).tolist(), normals, strict=True):
        np.random.Generator(np.random.Philox(key=key)).standard_normal(dtype=np.float32, out=into)
    return normals
