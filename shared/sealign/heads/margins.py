"""How much error a head's labels bear."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.heads.publishing import power_of_two

Matrix = NDArray[np.float64]

_RETAINED = 0.99
_FINEST, _COARSEST = 2.0**-30, 2.0**10


def margins(logits: ArrayLike) -> Matrix:
    """Return by how much each row's largest logit exceeds its second, (n,), of logits (n, classes)."""
    largest = np.partition(np.asarray(logits, dtype=np.float64), -2, axis=1)[:, -2:]
    exceeds: Matrix = largest[:, 1] - largest[:, 0]
    return exceeds


def label_agreement(logits: ArrayLike, error: float) -> float:
    """Return the share of rows that surely retain their label when no logit is off by more than ``error``."""
    return float(np.mean(margins(logits) > 2.0 * error))


def label_precision(logits: ArrayLike, retained: float = _RETAINED) -> float:
    """Return the largest power of two that, as an error of logits, leaves this share of rows their label.

    Plan with it where it is smaller than the precision that is wanted anyway. It is at least 2^-30, for a head whose
    labels nothing sets apart.
    """
    margin = float(np.quantile(margins(logits), 1.0 - retained))
    return float(np.clip(power_of_two(max(margin / 2.0, _FINEST)), _FINEST, _COARSEST))
