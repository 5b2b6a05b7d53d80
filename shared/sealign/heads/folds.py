"""Folds of labelled rows, by which heads are measured on rows that they were not fitted to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sealign.alignment.content import row_keys

Indices = NDArray[np.intp]


def folds_of(rows: NDArray[np.float64], targets: Indices, count: int, seed: int = 0) -> Indices:
    """Return the fold of each row, (n,), by its content: one row more or less moves no other; equal rows stay together.

    Classes of few rows, or of few different ones, are dealt out evenly, so that every fold's others know them.

    Args:
        rows: (n, d).
        targets: (n,), the class of each.
        count: of folds.
        seed: for other folds.
    """
    keys = row_keys(rows, seed)
    fold: Indices = (keys % np.uint64(count)).astype(np.intp)
    for number in range(int(targets.max()) + 1):
        members = np.flatnonzero(targets == number)
        if len(members) < 2 * count or 2 * np.bincount(fold[members]).max() > len(members):
            dealt = members[np.argsort(keys[members])]
            fold[dealt] = (np.arange(len(members)) + fold[dealt[:1]]) % count
    return fold
