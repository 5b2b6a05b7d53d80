"""Ridge regression from sufficient statistics, its penalty chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np

from sealign.alignment.affine import AffineMap, MapQuality
from sealign.alignment.channel import MappedChannel
from sealign.alignment.statistics import Matrix, Moments, RidgeStatistics
from sealign.errors import InvalidInputError

# Multiples of the mean eigenvalue of the source covariance, half a decade apart.
DEFAULT_PENALTIES: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-12, 5))


def fit_ridge(
    statistics: RidgeStatistics,
    penalties: Sequence[float] | None = None,
    *,
    source_fingerprint: str,
    target_fingerprint: str,
    public_set: str,
) -> AffineMap:
    """The affine map y = xW + b that minimises ‖Y − XW − b‖² + λ‖W‖² over all rows.

    λ = penalty · tr(XᵀX)/dim_source of the centred rows, so penalties mean the same for every n and
    every scale of embeddings. The penalty is the one with the smallest squared error over held-out
    folds, the stronger of equals. Held-out errors come from the statistics alone. One
    eigendecomposition a fold serves the whole path of penalties (Hastie, Tibshirani and Friedman,
    "The Elements of Statistical Learning", 2nd edition, sections 3.4.1 and 7.10).

    Args:
        statistics: at least two rows a fold; fewer rows than dimensions are fine.
        penalties: positive and finite; by default 1e-6 to 1e2.
        source_fingerprint: of the encoder whose embeddings were X (the client's).
        target_fingerprint: of the encoder whose embeddings were Y (the silo's).
        public_set: digest of the texts.

    Raises:
        InvalidInputError: too few rows, rows that are all the same, numbers too large to square, or
            a penalty that is not positive and finite.
    """
    ratios = checked_penalties(penalties)
    folds = range(statistics.folds)
    total = statistics.moments(*folds)
    _check(total, statistics.folds)

    unit = np.trace(total.xx) / total.xx.shape[0] / total.count
    errors, baseline = np.zeros(len(ratios)), 0.0
    without_first = _RidgePath(statistics.moments(*folds[1:]))
    for fold in folds:
        others = (k for k in folds if k != fold)
        path = _RidgePath(statistics.moments(*others)) if fold else without_first
        held_out = statistics.moments(fold)
        errors += path.held_out_errors(held_out, ratios * unit * path.train.count)
        baseline += _squared_error(held_out, path.train.mean_y)
    best = int(np.argmin(errors))

    sample_x, sample_y = statistics.held_out_sample()
    weight, intercept = without_first.fit(ratios[best] * unit * without_first.train.count)
    mean_cosine = _mean_cosine(sample_x @ weight + intercept, sample_y)
    weight, intercept = _RidgePath(total).fit(ratios[best] * unit * total.count)
    return AffineMap(
        weight=weight,
        intercept=intercept,
        source_fingerprint=source_fingerprint,
        target_fingerprint=target_fingerprint,
        public_set=public_set,
        quality=MapQuality(
            explained_variance=float(1.0 - errors[best] / baseline),
            mean_cosine=mean_cosine,
            linear_cka=linear_cka(total),
            rows=total.count,
            penalty=float(ratios[best]),
        ),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        channel=MappedChannel.fit(total, weight),
    )


def checked_penalties(penalties: Sequence[float] | None) -> Matrix:
    """Penalties, or the default ones: strongest first, so that argmin prefers it among equals.

    Raises:
        InvalidInputError: none, or one that is not positive and finite.
    """
    ratios = np.sort(np.asarray(DEFAULT_PENALTIES if penalties is None else penalties, float))[::-1]
    if not ratios.size or not np.all(np.isfinite(ratios) & (ratios > 0)):
        raise InvalidInputError("penalties must be positive, finite and at least one")
    return ratios


def linear_cka(moments: Moments) -> float:
    """Linear centred kernel alignment ‖XᵀY‖² / (‖XᵀX‖·‖YᵀY‖) of centred rows, in [0, 1].

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019,
    section 3 (the feature-space form). With fewer rows than dimensions it is biased upwards.
    """
    scale_x, scale_y = np.trace(moments.xx), np.trace(moments.yy)
    # Divided by the traces first, so that no square overflows.
    cross = float(np.sum((moments.xy / np.sqrt(scale_x) / np.sqrt(scale_y)) ** 2))
    own = np.linalg.norm(moments.xx / scale_x) * np.linalg.norm(moments.yy / scale_y)
    return float(min(cross / own, 1.0))


class Spectrum:
    """Ridge weights for every λ from one eigendecomposition XᵀX = V E Vᵀ.

    Attributes:
        values: E, shape (s,), not negative.
        vectors: V, shape (s, s).
        target: A = VᵀXᵀY, shape (s, t).
    """

    def __init__(self, xx: Matrix, xy: Matrix) -> None:
        values, self.vectors = np.linalg.eigh(xx)
        self.values: Matrix = np.maximum(values, 0.0)
        self.target: Matrix = self.vectors.T @ xy

    def weight(self, lam: float) -> Matrix:
        """W = V (E + λ)⁻¹ A, shape (s, t), for one λ > 0."""
        shrunk = self.target / (self.values + lam)[:, None]
        weight: Matrix = self.vectors @ shrunk
        return weight


class _RidgePath:
    """Ridge solutions of one set of rows for every λ."""

    def __init__(self, train: Moments) -> None:
        self.train = train
        self._spectrum = Spectrum(train.xx, train.xy)

    def fit(self, lam: float) -> tuple[Matrix, Matrix]:
        """W (s, t) and b (t,) for one λ > 0."""
        weight = self._spectrum.weight(lam)
        intercept: Matrix = self.train.mean_y - self.train.mean_x @ weight
        return weight, intercept

    def held_out_errors(self, held_out: Moments, lams: Matrix) -> Matrix:
        """Squared error summed over the held-out rows, for each λ.

        With d = 1/(E + λ) and A = VᵀXᵀY, W = V diag(d) A, and the error about the held-out mean,
        tr(YᵀY) − 2 tr(WᵀXᵀY) + tr(WᵀXᵀXW), is a quadratic form in d.
        """
        vectors, target = self._spectrum.vectors, self._spectrum.target
        linear = np.sum(target * (vectors.T @ held_out.xy), axis=1)
        quadratic = (vectors.T @ held_out.xx @ vectors) * (target @ target.T)
        shift_x = vectors.T @ (held_out.mean_x - self.train.mean_x)
        shift_y = held_out.mean_y - self.train.mean_y
        spread = np.trace(held_out.yy)
        errors = np.empty(len(lams))
        for index, lam in enumerate(lams):
            d = 1.0 / (self._spectrum.values + lam)
            offset = shift_y - (shift_x * d) @ target
            about_mean = spread - 2.0 * linear @ d + d @ quadratic @ d
            errors[index] = max(about_mean, 0.0) + held_out.count * offset @ offset
        return errors


def _squared_error(moments: Moments, prediction: Matrix) -> float:
    """Squared error of predicting the same target for every row."""
    offset = moments.mean_y - prediction
    return float(np.trace(moments.yy) + moments.count * offset @ offset)


def _mean_cosine(predicted: Matrix, actual: Matrix) -> float:
    """Mean over rows of the cosine between two embeddings; a zero row counts as 0."""
    norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(actual, axis=1)
    products = np.sum(predicted * actual, axis=1)
    return float(np.mean(np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)))


def _check(total: Moments, folds: int) -> None:
    if total.count < 2 * folds:
        raise InvalidInputError(f"{total.count} rows are too few for {folds} folds; give at least {2 * folds}")
    for side, scatter, mean in (
        ("source", total.xx, total.mean_x),
        ("target", total.yy, total.mean_y),
    ):
        spread = np.trace(scatter)
        if not np.isfinite(spread):
            raise InvalidInputError(f"{side} embeddings are too large to square; check the encoder")
        # Below this, what varies is the rounding of the mean (or a square that underflows).
        if spread <= max(1e-24 * total.count * mean @ mean, 1e-200):
            raise InvalidInputError(f"{side} embeddings are all the same; check the encoder")
