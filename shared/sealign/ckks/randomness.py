"""Gaussian noise from the operating system's randomness."""

from __future__ import annotations

import os
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def gaussian(count: int, std: float) -> NDArray[np.float64]:
    """Return independent Gaussian numbers of mean zero, shape (count,), for protection."""
    words = np.frombuffer(os.urandom(8 * count), dtype="<u8") >> np.uint64(12)
    uniform = (words + 0.5) / 2.0**52  # in (0, 1), ends excluded
    quantile = NormalDist(0.0, std).inv_cdf
    return np.array([quantile(number) for number in uniform.tolist()])
