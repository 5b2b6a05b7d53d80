"""Temperature, calibration error and thresholds of a head, from rows it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.heads.linear import LinearHead, checked_rows, class_indices
from sealign.heads.margins import label_precision
from sealign.heads.ood import SCORES, energy, row_blocks, softmax
from sealign.heads.publishing import published_fraction, published_threshold, rounded
from sealign.heads.trained import TrainedHead

Matrix = NDArray[np.float64]
Indices = NDArray[np.intp]

_BINS = 15
_MOST_LOGITS = 1 << 21
"""Logits that a temperature is fitted to: of thousands of classes, some hundred rows are enough."""
_HALVINGS = 24
"""Of an interval of 18 in the logarithm: to a millionth."""
_TEMPERATURES = (1e-4, 1e4)
"""Sought between, in units of the centred logits' root mean square."""


def calibrate(head: LinearHead, embeddings: ArrayLike, labels: Sequence[str]) -> TrainedHead:
    """Measure a head, an imported one for instance, on rows that it was not trained on, and divide by its temperature.

    Accuracy and thresholds carry noise that is drawn here, once, and are rounded; see `sealign.heads.publishing`.

    Args:
        head: any linear head.
        embeddings: (n, dimension), n at least 1; a few hundred give useful thresholds.
        labels: one of the head's labels for each row.

    Raises:
        InvalidInputError: wrong shapes, numbers that are not finite, or unknown labels.
    """
    logits = head.logits(checked_rows(embeddings))
    targets = class_indices(labels, head.labels, len(logits))
    temperature = two_digits(fit_temperature(logits, targets))
    cooled = logits / temperature
    return TrainedHead(
        head=head.scaled(1.0 / temperature),
        held_out_accuracy=published_fraction(float(np.mean(logits.argmax(axis=1) == targets)), len(logits)),
        calibration_error_before=expected_calibration_error(softmax(logits), targets),
        calibration_error_after=expected_calibration_error(softmax(cooled), targets),
        ood={name: published_threshold(score(cooled)) for name, score in SCORES.items()},
        held_out_rows=len(logits),
        temperature=temperature,
        precision=label_precision(cooled),
    )


def fit_temperature(logits: Matrix, targets: Indices) -> float:
    """The T that minimises the negative log-likelihood of softmax(logits/T).

    It is sought within a factor of 10,000 around the root mean square of the centred logits, so that a head may be of
    any scale. Of very many logits, rows spread evenly are looked at.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The right
    class has target probability 1 − 1/(n+2) as in Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999, so that a head without mistakes on few rows does not become certain.

    Args:
        logits: (n, classes).
        targets: (n,), indices of the right classes.
    """
    every = -(-logits.size // _MOST_LOGITS)
    logits, targets = logits[::every], targets[::every]
    rows, classes = logits.shape
    smoothing = 1.0 / (rows + 2)
    scale = float(np.sqrt(np.mean(logits.var(axis=1))))
    if not scale > 0:
        return 1.0  # every temperature says the same
    shifted = (logits - logits.max(axis=1, keepdims=True)) / scale  # no probability depends on a row's constant
    right = shifted[np.arange(rows), targets].sum()
    other = smoothing / (classes - 1)
    wanted = other * shifted.sum() + (1.0 - smoothing - other) * right
    # The likelihood is convex in 1/T, and its slope is the mean logit less the wanted one: bisect (in log 1/T).
    low, high = (-np.log(bound) for bound in reversed(_TEMPERATURES))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = sum(_mean_logits(np.exp(middle), shifted[block]) for block in row_blocks(shifted)) - wanted
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(scale * np.exp(-(low + high) / 2))


def _mean_logits(inverse: float, shifted: Matrix) -> float:
    """The sum over rows of the mean logit under softmax(logits/T), of logits (n, classes) of at most zero."""
    weights = np.exp(inverse * shifted)
    return float(np.sum(np.einsum("ij,ij->i", weights, shifted) / weights.sum(axis=1)))


def two_digits(value: float) -> float:
    """Return a positive number to two significant digits: 5 % is less than a temperature's standard error."""
    return rounded(value, 10.0 ** (np.floor(np.log10(value)) - 1))


def log_losses(logits: Matrix, targets: Indices) -> Matrix:
    """Each row's negative log-likelihood at the best temperature: (n,).

    Args:
        logits: (n, classes).
        targets: (n,), indices of the right classes.
    """
    temperature = fit_temperature(logits, targets)
    losses: Matrix = np.empty(len(logits))
    for block in row_blocks(logits):
        z = logits[block] / temperature
        losses[block] = energy(z) - z[np.arange(len(z)), targets[block]]
    return losses


def expected_calibration_error(probabilities: Matrix, targets: Indices) -> float:
    """Mean gap between confidence and accuracy over 15 equal bins of confidence, in [0, 1].

    Source: Guo et al., ICML 2017, equation 3.

    Args:
        probabilities: (n, classes).
        targets: (n,), indices of the right classes.
    """
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == targets) - confidence
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    return float(np.abs(np.bincount(bins, weights=gap, minlength=_BINS)).sum() / len(gap))
