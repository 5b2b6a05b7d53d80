"""Multinomial logistic regression on the silo's own embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.errors import InvalidInputError
from sealign.heads.calibration import calibrate, fit_temperature, log_losses, two_digits
from sealign.heads.importing import import_head
from sealign.heads.linear import LinearHead, checked_rows, class_indices
from sealign.heads.trained import TrainedHead

Matrix = NDArray[np.float64]
Indices = NDArray[np.intp]

# Half a decade apart, strongest first.
DEFAULT_PENALTIES: tuple[float, ...] = tuple(10.0 ** (-k / 2) for k in range(2, 13))
_HELD_OUT = 0.15


def train_head(
    embeddings: ArrayLike,
    labels: Sequence[str],
    *,
    classes: Sequence[str] | None = None,
    penalties: Sequence[float] = DEFAULT_PENALTIES,
    held_out: float = _HELD_OUT,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> TrainedHead:
    """Fit mean log-loss + penalty·v/2·‖W‖², v being the total variance of the embeddings.

    The factor v makes penalties mean the same for every scale of embeddings. From the strongest
    penalty on, heads are fitted on the training rows until the log-loss on the held-out rows (at
    the temperature fitted there, as it will be used) turns up. The strongest penalty whose loss is
    within one standard error of the smallest is chosen (Hastie, Tibshirani and Friedman, "The Elements of Statistical
    Learning", 2nd edition, section 7.10): small weights lean less on directions that an affine map
    from another encoder predicts badly. Temperature, accuracy and thresholds are measured on the
    held-out rows with the head that has not seen them; then the head is fitted once more, on all
    rows, with the chosen penalty, and divided by the temperature. With two classes W is a single
    column, the difference of logits.

    Args:
        embeddings: (n, dimension).
        labels: one a row.
        classes: the outputs, in order; by default the labels that occur, sorted.
        penalties: positive and finite.
        held_out: fraction of each class's rows (at least one) to hold out, in (0, 1).
        seed: of the split.
        progress: told of each head when it is fitted: at most one per penalty, and the last one.

    Raises:
        InvalidInputError: wrong shapes or numbers, a label outside ``classes``, or a class with
            fewer than two rows.
    """
    x = checked_rows(embeddings)
    names = tuple(sorted(set(labels)) if classes is None else classes)
    targets = class_indices(labels, names, len(x))
    if len(names) < 2:
        raise InvalidInputError(f"a head needs at least two classes, not {len(names)}")
    if not 0 < held_out < 1:
        raise InvalidInputError(f"held_out is {held_out}; give a fraction between 0 and 1")
    strongest_first = sorted(penalties, reverse=True)
    if not strongest_first or not all(0 < p < float("inf") for p in strongest_first):
        raise InvalidInputError("penalties must be positive, finite and at least one")
    held = stratified_hold_out(targets, names, held_out, seed)
    train_x, train_y, held_x, held_y = x[~held], targets[~held], x[held], targets[held]
    heads, losses, step = [], [], progress or (lambda _: None)
    for head in _fit_path(train_x, train_y, names, strongest_first):
        step(1)
        heads.append(head)
        losses.append(log_losses(head.logits(held_x), held_y))
        if len(losses) > 1 and losses[-1].mean() > losses[-2].mean():
            break
    chosen = _simplest(losses)
    measured = calibrate(heads[chosen], held_x, [names[k] for k in held_y])
    penalty = strongest_first[chosen]
    (final,) = _fit_path(x, targets, names, [penalty])
    step(1)
    return replace(measured, head=final.scaled(1.0 / measured.temperature), penalty=penalty)


def retrain_head(
    embeddings: ArrayLike, labels: Sequence[str], *, classes: Sequence[str], penalty: float, seed: int = 0
) -> LinearHead:
    """Fit the head of a known penalty to part of a task's rows, as :func:`train_head` does to all of them.

    A part may hold one row of a rare class. The head is trained on it, and its temperature is fitted without it.

    Args:
        embeddings: (n, dimension).
        labels: one a row.
        classes: the outputs, in order.
        penalty: positive and finite.
        seed: of the rows that the temperature is fitted to.

    Raises:
        InvalidInputError: wrong shapes or numbers, a label outside ``classes``, or a class without rows.
    """
    x, names = checked_rows(embeddings), tuple(classes)
    targets = class_indices(labels, names, len(x))
    held = stratified_hold_out(targets, names, _HELD_OUT, seed, fewest=1)
    (final,) = _fit_path(x, targets, names, [penalty])
    if not held.any():
        return final
    (seen,) = _fit_path(x[~held], targets[~held], names, [penalty])
    return final.scaled(1.0 / two_digits(fit_temperature(seen.logits(x[held]), targets[held])))


def _simplest(losses: Sequence[Matrix]) -> int:
    """Which head to take: the first whose mean loss is within one standard error of the smallest."""
    means = np.array([loss.mean() for loss in losses])
    best = int(means.argmin())
    standard_error = losses[best].std() / np.sqrt(len(losses[best]))
    return int(np.argmax(means <= means[best] + standard_error))


def stratified_hold_out(
    targets: Indices, names: Sequence[str], fraction: float, seed: int, fewest: Literal[1, 2] = 2
) -> NDArray[np.bool_]:
    """Which rows to hold out, (n,): of each class the given fraction, at least one and never all.

    Args:
        targets: (n,), the class of each row.
        names: of the classes.
        fraction: to hold out, in (0, 1).
        seed: of the draw.
        fewest: rows that a class must have. With 1, none is held out of a class of one row.

    Raises:
        InvalidInputError: a class with fewer rows.
    """
    random = np.random.default_rng(seed)
    held = np.zeros(len(targets), dtype=bool)
    for number, name in enumerate(names):
        rows = np.flatnonzero(targets == number)
        if len(rows) < fewest:
            raise InvalidInputError(
                f"class {name!r} has {len(rows)} rows; give at least two, one to train and one to "
                "measure, or leave the class out"
            )
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        held[random.permutation(rows)[:count]] = True
    return held


def _fit_path(x: Matrix, targets: Indices, names: tuple[str, ...], penalties: Sequence[float]) -> Iterator[LinearHead]:
    """One head for each penalty, each started from the one before, fitted when asked for."""
    from sklearn.linear_model import LogisticRegression

    mean = x.mean(axis=0)
    centred = x - mean
    scale = np.sqrt(np.mean(np.sum(centred**2, axis=1)))
    if scale == 0:
        raise InvalidInputError("the embeddings are all the same; check the encoder")
    # Centred to total variance one: the same optimum, and L-BFGS gets there in fewer steps.
    centred /= scale
    estimator = LogisticRegression(solver="lbfgs", max_iter=2000, warm_start=True)
    for penalty in penalties:
        estimator.set_params(C=1.0 / (penalty * len(x))).fit(centred, targets)
        head = import_head(estimator, labels=names)
        weight = head.weight / scale
        yield LinearHead(weight, head.bias - mean @ weight, names)
