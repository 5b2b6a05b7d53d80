"""Weights of public texts by how near they are to what a task's published description says."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sealign.alignment.statistics import Matrix
from sealign.errors import InvalidInputError

EFFECTIVE_SHARE = 0.5
"""Of the public texts, by default: below it a map loses more by seeing fewer texts than it wins by nearer ones."""

_SHARPEST = 100.0


def similarity_weights(public: ArrayLike, described: ArrayLike, effective_share: float = EFFECTIVE_SHARE) -> Matrix:
    """exp(β·cosine) of each public text with the description, scaled to mean one.

    β is the largest, up to 100, that leaves an effective number of texts (Σw)²/Σw² (Kish, "Survey Sampling", 1965,
    section 11.7) of at least the given share, so that no few texts decide the map. The weights go into
    :meth:`RidgeStatistics.update`; both sides may publish or compute them.

    Args:
        public: embeddings of the public texts, (n, d).
        described: embeddings of the description, (m, d): one text or several, whose mean counts.
        effective_share: in (0, 1]; with 1 all weights are one.

    Returns:
        Positive weights, (n,).

    Raises:
        InvalidInputError: shapes that do not fit together, no rows, or a share out of bounds.
    """
    x, d = np.asarray(public, dtype=np.float64), np.asarray(described, dtype=np.float64)
    if x.ndim != 2 or d.ndim != 2 or x.shape[1] != d.shape[1] or not len(x) or not len(d):
        raise InvalidInputError(
            f"public texts' embeddings {x.shape} and the description's {d.shape} must be of one encoder, a row at least"
        )
    if not 0 < effective_share <= 1:
        raise InvalidInputError(f"an effective share of {effective_share} is not within (0, 1]")
    centred, towards = x - x.mean(axis=0), d.mean(axis=0) - x.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(towards)
    cosines = np.divide(centred @ towards, norms, out=np.zeros(len(x)), where=norms > 0)
    low, high = 0.0, _SHARPEST
    for _ in range(50):
        middle = (low + high) / 2
        weights = np.exp(middle * (cosines - cosines.max()))
        enough = weights.sum() ** 2 >= effective_share * len(x) * np.sum(weights**2)
        low, high = (middle, high) if enough else (low, middle)
    weights = np.exp(low * (cosines - cosines.max()))
    scaled: Matrix = weights / weights.mean()
    return scaled
