"""Out-of-distribution scores of logits, and how well they separate.

Every score is larger for texts like those the head was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.errors import InvalidInputError

Matrix = NDArray[np.float64]

_BLOCK = 1 << 16
"""Logits that are worked on at a time."""


def softmax(logits: ArrayLike) -> Matrix:
    """Class probabilities (n, classes), from logits of the same shape."""
    z = np.asarray(logits, dtype=np.float64)
    exponentials = np.exp(z - z.max(axis=-1, keepdims=True))
    probabilities: Matrix = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def row_blocks(logits: Matrix) -> Iterator[slice]:
    """Yield slices of rows that fit a processor's cache: thousands of classes take half the time so."""
    rows = max(1, _BLOCK // max(1, logits.shape[-1]))
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)


def energy(logits: ArrayLike, temperature: float = 1.0) -> Matrix:
    """T·logsumexp(logits/T), (n,): the negative energy of Liu et al., "Energy-based
    Out-of-distribution Detection", NeurIPS 2020, section 3.1."""
    z = np.asarray(logits, dtype=np.float64)
    scores: Matrix = np.empty(len(z))
    for block in row_blocks(z):
        part = z[block] / temperature
        largest = part.max(axis=-1)
        scores[block] = temperature * (largest + np.log(np.exp(part - largest[..., None]).sum(axis=-1)))
    return scores


def max_softmax(logits: ArrayLike) -> Matrix:
    """Largest class probability, (n,): Hendrycks and Gimpel, "A Baseline for Detecting
    Misclassified and Out-of-Distribution Examples", ICLR 2017, section 2."""
    z = np.asarray(logits, dtype=np.float64)
    largest: Matrix = np.empty(len(z))
    for block in row_blocks(z):
        largest[block] = softmax(z[block]).max(axis=-1)
    return largest


def max_logit(logits: ArrayLike) -> Matrix:
    """Largest logit, (n,): Hendrycks et al., "Scaling Out-of-Distribution Detection for
    Real-World Settings", ICML 2022, section 3."""
    largest: Matrix = np.asarray(logits, dtype=np.float64).max(axis=-1)
    return largest


SCORES: MappingProxyType[str, Callable[[ArrayLike], Matrix]] = MappingProxyType(
    {"energy": energy, "max_softmax": max_softmax, "max_logit": max_logit}
)


def threshold_at_95(inliers: ArrayLike) -> float:
    """The largest score that at least 95 % of the inliers reach.

    Raises:
        InvalidInputError: no scores, or some that are not finite.
    """
    scores = np.sort(_checked(inliers, "inlier"))
    return float(scores[len(scores) - -(-len(scores) * 95 // 100)])


def fpr_at_95(inliers: ArrayLike, outliers: ArrayLike) -> float:
    """Fraction of outliers at or above the threshold that 95 % of the inliers reach.

    Raises:
        InvalidInputError: no scores, or some that are not finite.
    """
    return float(np.mean(_checked(outliers, "outlier") >= threshold_at_95(inliers)))


def auroc(inliers: ArrayLike, outliers: ArrayLike) -> float:
    """Probability that an inlier scores above an outlier, ties counted half; O(n log n).

    Raises:
        InvalidInputError: no scores, or some that are not finite.
    """
    high, low = _checked(inliers, "inlier"), np.sort(_checked(outliers, "outlier"))
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.mean() / (2 * len(low)))


def _checked(scores: ArrayLike, kind: str) -> Matrix:
    array = np.asarray(scores, dtype=np.float64).ravel()
    if not array.size or not np.isfinite(array).all():
        raise InvalidInputError(f"{kind} scores must be finite and at least one")
    return array
