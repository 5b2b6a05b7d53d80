"""What makes a measurement fit to be published: noise drawn once, and no more digits than it is worth.

A figure over n private rows has a standard error s that says how far it would move on other rows. Gaussian noise of
standard deviation s/2 makes that error 12 % larger, and hides one row. A row moves an accuracy a by 1/n at most, the
noise by √(a(1−a)/n)/2, which is 3.4 times as much at n = 500 and a = 0.9, and 6.7 times at n = 2,000. The noise is
drawn from the operating system when a task is trained, and stored with it: whoever asks again sees the same draw.
"""

from __future__ import annotations

from random import SystemRandom

import numpy as np
from numpy.typing import ArrayLike

_NOISE = 0.5
"""Standard deviation of the noise, in standard errors of the figure."""

ACCURACY_STEP = 0.005
_QUANTILE = 0.05
_RANDOM = SystemRandom()


def with_noise(value: float, standard_error: float) -> float:
    """Return the value with noise of half its standard error, from the operating system."""
    return value + _RANDOM.gauss(0.0, _NOISE * standard_error)


def standard_error(fraction: float, rows: int) -> float:
    """Return that of a fraction of so many rows, as if one more row were right and one more wrong."""
    smoothed = (fraction * rows + 1.0) / (rows + 2.0)
    return float(np.sqrt(smoothed * (1.0 - smoothed) / rows))


def published_fraction(fraction: float, rows: int) -> float:
    """Return a fraction of private rows with noise, in steps of 0.005."""
    return rounded(float(np.clip(with_noise(fraction, standard_error(fraction, rows)), 0.0, 1.0)), ACCURACY_STEP)


def published_threshold(scores: ArrayLike) -> float:
    """Return about the value that 95 % of the private rows' scores reach, with noise, in a coarse step.

    The standard error is half the distance of the quantiles one binomial standard deviation above and below. The value
    is their mean, so that it is nobody's score. The step is about half the standard error.
    """
    values = np.asarray(scores, dtype=np.float64)
    spread = np.sqrt(_QUANTILE * (1.0 - _QUANTILE) / len(values))
    low, high = np.quantile(values, np.clip([_QUANTILE - spread, _QUANTILE + spread], 0.0, 1.0))
    error = float(high - low) / 2.0
    if not error > 0:
        return float(low)
    return rounded(with_noise(float(low + high) / 2.0, error), power_of_two(error / 2.0))


def rounded(value: float, step: float) -> float:
    """Return the nearest multiple of a step."""
    return float(round(value / step) * step)


def power_of_two(size: float) -> float:
    """Return the largest power of two that is at most ``size``, which is positive."""
    return float(2.0 ** np.floor(np.log2(size)))
