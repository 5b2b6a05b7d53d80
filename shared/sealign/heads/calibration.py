"""Temperature, calibration error and thresholds of a head, from rows it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.heads.linear import LinearHead, checked_rows, class_indices
from sealign.heads.ood import SCORES, energy, softmax, threshold_at_95
from sealign.heads.trained import TrainedHead

Matrix = NDArray[np.float64]
Indices = NDArray[np.intp]

_BINS = 15
_TEMPERATURES = (1e-2, 1e2)


def calibrate(head: LinearHead, embeddings: ArrayLike, labels: Sequence[str]) -> TrainedHead:
    """Measure a head, an imported one for instance, on rows that it was not trained on.

    Args:
        head: any linear head.
        embeddings: (n, dimension), n at least 1; a few hundred give useful thresholds.
        labels: one of the head's labels for each row.

    Raises:
        InvalidInputError: wrong shapes, numbers that are not finite, or unknown labels.
    """
    logits = head.logits(checked_rows(embeddings))
    targets = class_indices(labels, head.labels, len(logits))
    temperature = fit_temperature(logits, targets)
    return TrainedHead(
        head=head,
        temperature=temperature,
        held_out_accuracy=float(np.mean(logits.argmax(axis=1) == targets)),
        calibration_error_before=expected_calibration_error(softmax(logits), targets),
        calibration_error_after=expected_calibration_error(softmax(logits / temperature), targets),
        ood={name: threshold_at_95(score(logits)) for name, score in SCORES.items()},
        held_out_rows=len(logits),
    )


def fit_temperature(logits: Matrix, targets: Indices) -> float:
    """The T in [0.01, 100] that minimises the negative log-likelihood of softmax(logits/T).

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The right
    class has target probability 1 − 1/(n+2) as in Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999, so that a head without mistakes on few rows does not become certain.

    Args:
        logits: (n, classes).
        targets: (n,), indices of the right classes.
    """
    rows, classes = logits.shape
    smoothing = 1.0 / (rows + 2)
    target = np.full((rows, classes), smoothing / (classes - 1))
    target[np.arange(rows), targets] = 1.0 - smoothing
    if np.ptp(logits, axis=1).max() == 0:
        return 1.0  # every temperature says the same
    # The likelihood is convex in 1/T, and this is its slope: bisect (in log 1/T) for the zero.
    low, high = (-np.log(bound) for bound in reversed(_TEMPERATURES))
    for _ in range(60):
        middle = (low + high) / 2
        slope = np.sum((softmax(np.exp(middle) * logits) - target) * logits)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def log_losses(logits: Matrix, targets: Indices) -> Matrix:
    """Each row's negative log-likelihood at the best temperature: (n,).

    Args:
        logits: (n, classes).
        targets: (n,), indices of the right classes.
    """
    z = logits / fit_temperature(logits, targets)
    losses: Matrix = energy(z) - z[np.arange(len(z)), targets]
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
