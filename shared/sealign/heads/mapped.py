"""The head to serve behind a map, chosen on held-out embeddings sent through the map's channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.alignment import MappedChannel
from sealign.heads.calibration import fit_temperature, log_losses
from sealign.heads.discriminant import ClassStatistics, Outliers, discriminant_head
from sealign.heads.linear import LinearHead, checked_rows, class_indices
from sealign.heads.ood import threshold_at_95
from sealign.heads.served import ServedHead

Matrix = NDArray[np.float64]

SHRINKAGES: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03)
"""Of discriminant heads, strongest first."""

_DRAWN_ROWS = 1000
"""Mapped counterparts to measure with, at least: several of each row where rows are few."""


@dataclass(frozen=True, eq=False)
class CalibratedHead:
    """A head for mapped embeddings and what was measured on held-out rows sent through the channel.

    Attributes:
        head: all outputs.
        temperature: divide logits by it before the softmax.
        accuracy: fraction of those rows whose largest logit is the right one; None where none were sent.
        ood: by score, in the order of :meth:`OutputLayout.scores`, the value that 95 % of those rows reach.
        shrinkage: of a discriminant head; None for the silo's own.
    """

    head: ServedHead
    temperature: float
    accuracy: float | None
    ood: Mapping[str, float]
    shrinkage: float | None = None


def head_behind(
    channel: MappedChannel,
    own: LinearHead,
    held_out: ArrayLike,
    labels: Sequence[str],
    statistics: ClassStatistics | None = None,
    *,
    directions: int = 0,
) -> CalibratedHead:
    """The head that predicts best behind a map: the silo's own, or a discriminant fitted to mapped embeddings.

    Judged by the log-loss, at its best temperature, on mapped counterparts of held-out rows; the own head is kept if it
    is better by more than a standard error. Of the
    discriminants, the strongest shrinkage within one standard error of the best is taken (as in
    :func:`train_head`), and fitted once more with the held-out rows; it is served with its temperature divided out,
    so that a plan's precision means the same for every head.

    Args:
        channel: from the silo's embeddings to mapped ones.
        own: trained on the silo's embeddings.
        held_out: labelled embeddings of the silo, (n, d), none of them in ``statistics``.
        labels: one a row.
        statistics: of the training embeddings; None to keep the own head.
        directions: of the linear Mahalanobis score; a discriminant's only.

    Raises:
        InvalidInputError: shapes that do not fit together, or unknown labels.
    """
    rows = checked_rows(held_out)
    indices = class_indices(labels, own.labels, len(rows))
    draws = -(-_DRAWN_ROWS // len(rows))
    drawn, targets = channel.apply(np.repeat(rows, draws, axis=0)), np.repeat(indices, draws)
    chosen = _calibrated(ServedHead(own), drawn, targets)
    if statistics is None:
        return chosen
    outliers = Outliers(channel.mean.astype(np.float64), channel.public_covariance)
    mapped = statistics.through(channel)
    fitted = [discriminant_head(mapped, shrinkage, outliers, directions) for shrinkage in SHRINKAGES]
    losses = [_log_losses(head, drawn, targets) for head in fitted]
    means = np.array([loss.mean() for loss in losses])
    best = int(means.argmin())
    # The own head has seen these rows, and has no outputs for outliers: it is to be better by more than chance.
    gains = losses[best] - _log_losses(chosen.head, drawn, targets)
    if gains.mean() > gains.std() / np.sqrt(len(rows)):
        return chosen
    standard_error = losses[best].std() / np.sqrt(len(rows))
    taken = int(np.argmax(means <= means[best] + standard_error))
    temperature = fit_temperature(fitted[taken].head.logits(drawn), targets)
    measured = _calibrated(fitted[taken].cooled(temperature), drawn, targets, SHRINKAGES[taken])
    everything = statistics.merged(ClassStatistics.of(rows, labels, statistics.labels))
    final = discriminant_head(everything.through(channel), SHRINKAGES[taken], outliers, directions)
    return replace(measured, head=final.cooled(temperature))


def _calibrated(
    head: ServedHead, rows: ArrayLike, targets: NDArray[np.intp], shrinkage: float | None = None
) -> CalibratedHead:
    """The head with what these rows, (n, d), say about it."""
    outputs = head.outputs(rows)
    logits = head.layout.logits(outputs)
    return CalibratedHead(
        head=head,
        temperature=fit_temperature(logits, targets),
        accuracy=float(np.mean(logits.argmax(axis=1) == targets)),
        ood={name: threshold_at_95(score) for name, score in head.layout.scores(outputs).items()},
        shrinkage=shrinkage,
    )


def _log_losses(head: ServedHead, rows: ArrayLike, targets: NDArray[np.intp]) -> Matrix:
    return log_losses(head.head.logits(rows), targets)
