"""Ridge regression from sufficient statistics, its penalty chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sealign.alignment.statistics import Matrix, Moments
from sealign.errors import InvalidInputError

# Multiples of the mean eigenvalue of the source covariance, half a decade apart.
DEFAULT_PENALTIES: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-12, 5))


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """y = xW + b over all rows, and how well the same penalty predicts held-out rows.

    Attributes:
        weight: (dim_source, dim_target).
        intercept: (dim_target,).
        penalty: chosen, as a multiple of the mean eigenvalue of XᵀX.
        strength: the same as λ per row.
        error: squared error over all held-out folds.
        baseline: the same for predicting the training mean.
    """

    weight: Matrix
    intercept: Matrix
    penalty: float
    strength: float
    error: float
    baseline: float


def cross_validated_ridge(
    moments: Callable[..., Moments], folds: int, penalties: Sequence[float] = DEFAULT_PENALTIES
) -> RidgeFit:
    """Minimise ‖Y − XW − b‖² + λ‖W‖², λ = penalty · tr(XᵀX)/dim_source of the centred rows.

    So penalties mean the same for every n and every scale of embeddings. The penalty is the one with
    the smallest squared error over held-out folds, the stronger of equals. Held-out errors come from
    the statistics alone. One eigendecomposition a fold serves the whole path of penalties (Hastie,
    Tibshirani and Friedman, "The Elements of Statistical Learning", 2nd edition, sections 3.4.1 and
    7.10).

    Args:
        moments: of all rows in the folds it is given, of 0 to ``folds`` − 1.
        folds: at least two.
        penalties: positive and finite.

    Raises:
        InvalidInputError: a penalty that is not positive and finite.
    """
    ratios = checked_penalties(penalties)
    total = moments(*range(folds))
    unit = _mean_eigenvalue(total)
    errors, baseline = np.zeros(len(ratios)), 0.0
    for fold in range(folds):
        path = _RidgePath(_others(moments, folds, fold))
        held_out = moments(fold)
        errors += path.held_out_errors(held_out, ratios * unit * path.train.count)
        baseline += _squared_error(held_out, path.train.mean_y)
    best = int(np.argmin(errors))
    weight, intercept = _RidgePath(total).fit(ratios[best] * unit * total.count)
    return RidgeFit(
        weight=weight,
        intercept=intercept,
        penalty=float(ratios[best]),
        strength=float(ratios[best] * unit),
        error=float(errors[best]),
        baseline=baseline,
    )


def ridge_weight(moments: Moments, strength: float) -> Matrix:
    """Return W, (s, t), of ridge regression with λ = strength · rows, as `RidgeFit.strength` is."""
    penalised = moments.xx + strength * moments.count * np.eye(len(moments.xx))
    return np.asarray(np.linalg.solve(penalised, moments.xy), dtype=np.float64)


def held_out_error(
    moments: Callable[..., Moments],
    held_out: Callable[[int], Moments],
    folds: int,
    penalties: Sequence[float] = DEFAULT_PENALTIES,
) -> float:
    """Squared error over held-out rows of all folds, at the penalty at which it is smallest.

    Args:
        moments: to fit to, as for :func:`cross_validated_ridge`.
        held_out: of the rows of a fold that are to be predicted: all, or those of one kind.
        folds: at least two.
        penalties: positive and finite.

    Raises:
        InvalidInputError: a penalty that is not positive and finite.
    """
    ratios = checked_penalties(penalties)
    unit = _mean_eigenvalue(moments(*range(folds)))
    errors = np.zeros(len(ratios))
    for fold in range(folds):
        path = _RidgePath(_others(moments, folds, fold))
        errors += path.held_out_errors(held_out(fold), ratios * unit * path.train.count)
    return float(errors.min())


def checked_penalties(penalties: Sequence[float]) -> Matrix:
    """Penalties, strongest first, so that argmin prefers it among equals.

    Raises:
        InvalidInputError: none, or one that is not positive and finite.
    """
    ratios = np.sort(np.asarray(penalties, float))[::-1]
    if not ratios.size or not np.all(np.isfinite(ratios) & (ratios > 0)):
        raise InvalidInputError("penalties must be positive, finite and at least one")
    return ratios


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

    def residual(self, lam: float, squared_norm: float) -> float:
        """Squared error over the rows that this is of, ‖Y‖² being ``squared_norm``.

        With d = 1/(E + λ) and aₖ row k of A, RSS(λ) = ‖Y‖² − Σₖ (2dₖ − Eₖdₖ²)‖aₖ‖².
        """
        d = 1.0 / (self.values + lam)
        return float(squared_norm - np.sum((2 * d - self.values * d * d) * np.sum(self.target**2, axis=1)))

    def generalised_error(self, lam: float, squared_norm: float, count: float) -> float:
        """Generalised cross-validation's estimate of a new row's squared error, after ``count`` rows.

        RSS(λ)/n / (1 − df(λ)/n)², df(λ) = 1 + Σₖ Eₖdₖ, the 1 for the mean. Source: Golub, Heath and Wahba,
        "Generalized cross-validation as a method for choosing a good ridge parameter", Technometrics 21(2),
        1979, section 1.
        """
        freedom = 1.0 - (1.0 + float(np.sum(self.values / (self.values + lam)))) / count
        return max(self.residual(lam, squared_norm), 0.0) / count / max(freedom, 1e-9) ** 2


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


def _others(moments: Callable[..., Moments], folds: int, fold: int) -> Moments:
    """Moments of all folds but one."""
    return moments(*(other for other in range(folds) if other != fold))


def _mean_eigenvalue(moments: Moments) -> float:
    """Of the source rows' covariance."""
    return float(np.trace(moments.xx) / len(moments.xx) / moments.count)


def _squared_error(moments: Moments, prediction: Matrix) -> float:
    """Squared error of predicting the same target for every row."""
    offset = moments.mean_y - prediction
    return float(np.trace(moments.yy) + moments.count * offset @ offset)
