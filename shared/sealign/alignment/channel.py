"""What an affine map makes of the silo's embeddings: a linear-Gaussian model of y → ŷ.

The silo has labelled embeddings y of its own encoder, but serves mapped embeddings ŷ = xW + b of a
client's, which ridge regression shrinks and the other encoder blurs. Thresholds and temperatures
measured on y do not hold for ŷ; measured on y sent through this channel, they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.alignment.content import row_normals
from sealign.alignment.map_covariances import MapCovariances
from sealign.alignment.regression import (
    DEFAULT_PENALTIES,
    Spectrum,
    checked_penalties,
    cross_validated_ridge,
    ridge_weight,
)
from sealign.alignment.statistics import Matrix, Moments, RidgeStatistics
from sealign.errors import InvalidInputError

_REACH = 0.1
"""Of the public texts' mean eigenvalue: variance below it counts as none."""


@dataclass(frozen=True, eq=False)
class MappedChannel:
    """ŷ = m + (y − m)·gain + ε, ε ~ N(0, noiseᵀ·noise): mapped counterparts of target embeddings.

    The gain is the ridge regression of mapped on target embeddings over the public set, its penalty
    chosen by cross-validation (with little of it, the gain fits the public texts and is too faithful or
    too faint for others); the noise is what covariance the mapped ones have beyond that. So
    counterparts of the public texts have exactly the mean and covariance of their mapped embeddings.

    A map has seen these texts, and the few of a task that weigh more than others it nearly knows by heart. A head is
    best fitted to that noise, but must not be judged by it (:meth:`unseen_texts`).

    Attributes:
        mean: m, (d,), of the public texts' target embeddings; float32, read-only. It is the mean of
            their mapped ones as well: a map's intercept sees to it.
        gain: (d, d), float32, read-only.
        noise: (d, d), a factor of the noise's covariance, float32, read-only.
        spread: (d, d), a factor of the covariance of the public texts' target embeddings, those of a task left out,
            float32, read-only.
        unseen: (d, d), a factor of the noise's covariance for texts that the map was not learned from, float32,
            read-only.

    Raises:
        InvalidInputError: shapes that do not fit together, or numbers that are not finite.
    """

    ARRAYS: ClassVar = ("mean", "gain", "noise", "spread", "unseen")

    mean: NDArray[np.float32]
    gain: NDArray[np.float32]
    noise: NDArray[np.float32]
    spread: NDArray[np.float32]
    unseen: NDArray[np.float32]

    def __post_init__(self) -> None:
        square = (self.dimension, self.dimension)
        for name in self.ARRAYS:
            shape = square[:1] if name == "mean" else square
            array = np.array(getattr(self, name), dtype=np.float32)
            if array.shape != shape or not array.size:
                raise InvalidInputError(f"a mapped channel's {name} has shape {array.shape} where {shape} is needed")
            if not np.isfinite(array).all():
                raise InvalidInputError(f"a mapped channel's {name} holds numbers that are not finite; align again")
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def blur(cls, mean: Matrix, covariance: Matrix, noise: float) -> MappedChannel:
        """The channel of the best linear map from a noisy view of the embeddings themselves.

        Embeddings y of this mean and covariance V·diag(v)·Vᵀ are seen as y + e, e ~ N(0, t·I), with t the mean of v
        times ``noise``. The best linear prediction of y shrinks direction k by v/(v + t) (the Wiener filter: Hastie,
        Tibshirani and Friedman, "The Elements of Statistical Learning", 2nd edition, equation 3.47, is the same
        shrinkage). A channel of this kind costs a task about as much as a real map with an equal loss, and no client
        chooses it.

        Args:
            mean: (d,).
            covariance: (d, d), not zero.
            noise: not negative; 0 leaves embeddings unchanged.
        """
        values, vectors = np.linalg.eigh(covariance)
        values = np.maximum(values, 0.0)
        variance = noise * values.mean()
        shrunk = np.divide(values, values + variance, out=np.ones_like(values), where=values + variance > 0)
        gain = (vectors * shrunk) @ vectors.T  # symmetric, and so a factor of the noise but for its size
        factor = np.sqrt(variance) * gain
        return cls(*(array.astype(np.float32) for array in (mean, gain, factor, _factor(covariance), factor)))

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str = "") -> MappedChannel:
        """Return the channel that was kept as arrays, each under its name.

        Earlier versions kept no noise of unseen texts; the other one stands for it.

        Raises:
            KeyError: an array is missing.
            InvalidInputError: shapes that do not fit together, or numbers that are not finite.
        """
        kept = {f"{prefix}unseen": arrays[f"{prefix}noise"], **arrays}
        return cls(*(kept[prefix + name].astype(np.float32) for name in cls.ARRAYS))

    @classmethod
    def fit(cls, statistics: RidgeStatistics, weight: Matrix, refit: Callable[[Moments], Matrix]) -> MappedChannel:
        """The channel of a map, from the statistics that it was learned from.

        The noise of unseen texts is cross-fitted: map and gain are fitted without a fold, and its public texts are
        what they leave unexplained. Texts of a task that the map was told to weigh take part in the fits only, so that
        a map is judged by texts that it does not know, and yet as one that knows those.

        Args:
            statistics: of source rows x and target rows y that are not all the same; fewer rows than
                dimensions are fine.
            weight: W of the map, (dim_source, dim_target).
            refit: the same map's weight for part of the rows.
        """

        def moments(*folds: int) -> Moments:
            return _mapped(statistics.moments(*folds), weight)

        public, every = statistics.public, range(statistics.folds)
        gain = cross_validated_ridge(moments, statistics.folds)
        unseen: Matrix = np.zeros_like(gain.weight)
        for fold in every:
            train, held_out = statistics.moments(*(other for other in every if other != fold)), public.moments(fold)
            without = refit(train)
            unseen += _unexplained(train, held_out, without, ridge_weight(_mapped(train, without), gain.strength))
        total, of_public = moments(*every), public.moments(*every)
        own, mapped, spread = total.xx / total.count, total.yy / total.count, of_public.yy / of_public.count
        return cls._of(total.mean_x, gain.weight, own, mapped, spread, unseen / of_public.count)

    @classmethod
    def of_covariances(cls, Y: ArrayLike, covariances: MapCovariances) -> MappedChannel:
        """The channel of a map that is applied elsewhere.

        Of a map from centred source rows to centred target rows, as encrypted alignment makes it. The gain's penalty
        minimises generalised cross-validation, which needs no rows.

        Args:
            Y: target embeddings of the public texts, (n, d).
            covariances: of these and their mapped counterparts.

        Raises:
            InvalidInputError: wrong shape, embeddings that are all the same, or covariances of no map.
        """
        y = np.asarray(Y, dtype=np.float64)
        if y.ndim != 2 or y.shape[1] != covariances.dimension:
            raise InvalidInputError(
                f"covariances of {covariances.dimension} dimensions do not fit embeddings of shape {y.shape}"
            )
        mean = y.mean(axis=0)
        own = (y - mean).T @ (y - mean) / len(y)
        spectrum = Spectrum(own, covariances.cross.astype(np.float64))
        mapped = covariances.mapped.astype(np.float64)
        unit, norm = float(np.mean(spectrum.values)), float(np.trace(mapped))
        penalties = [ratio * unit for ratio in checked_penalties(DEFAULT_PENALTIES)]
        if not unit > 0 or not norm > 0 or any(spectrum.residual(lam, norm) < -1e-3 * norm for lam in penalties):
            raise InvalidInputError("the covariances contradict the silo's embeddings: they are of no map into them")
        best = min(penalties, key=lambda lam: spectrum.generalised_error(lam, norm, len(y)))
        return cls._of(mean, spectrum.weight(best), own, mapped, own)

    @classmethod
    def _of(
        cls, mean: Matrix, gain: Matrix, own: Matrix, mapped: Matrix, spread: Matrix, unseen: Matrix | None = None
    ) -> MappedChannel:
        """From covariances: what the gain leaves of the mapped embeddings' is noise."""
        # The map's intercept gives mapped and target embeddings the same mean.
        noise = _factor(mapped - gain.T @ own @ gain)
        other = noise if unseen is None else _factor(unseen)
        return cls(*(array.astype(np.float32) for array in (mean, gain, noise, _factor(spread), other)))

    @property
    def dimension(self) -> int:
        return int(np.size(self.mean))

    @property
    def noise_covariance(self) -> Matrix:
        """(d, d), of ε."""
        return _covariance(self.noise)

    def reach(self, covariance: Matrix) -> float:
        """Return how far texts reach beyond the public ones: tr(C(S + λI)⁻¹)/d, at least 1.

        It is their variance in units of the public texts' S, averaged over directions. λ is a tenth of the mean
        eigenvalue of S, about the ridge penalty that cross-validation chooses. Where a map has seen little it is wrong
        by more, and noise that is as many times as large (:meth:`noisier`) predicts accuracies better.

        Args:
            covariance: C, of the task's target embeddings, (d, d).
        """
        public = _covariance(self.spread)
        ridge = _REACH * np.trace(public) / self.dimension
        if not ridge > 0:
            return 1.0
        relative = np.linalg.solve(public + ridge * np.eye(self.dimension), covariance)
        return max(float(np.trace(relative)) / self.dimension, 1.0)

    def noisier(self, factor: float) -> MappedChannel:
        """Return the channel with so many times the noise's covariance, of unseen texts too."""
        root = np.float32(np.sqrt(factor))
        return replace(self, noise=self.noise * root, unseen=self.unseen * root)

    def unseen_texts(self) -> MappedChannel:
        """Return the channel with the noise of texts that the map was not learned from, to judge a head by."""
        return replace(self, noise=self.unseen)

    def expected(self, Y: ArrayLike) -> Matrix:
        """The mean mapped counterpart, (n, d), of each target embedding, (n, d).

        Raises:
            InvalidInputError: wrong shape.
        """
        y = np.asarray(Y, dtype=np.float64)
        if y.ndim != 2 or y.shape[1] != self.dimension:
            raise InvalidInputError(f"embeddings have shape {y.shape}; the channel takes (rows, {self.dimension})")
        mapped: Matrix = self.mean + (y - self.mean) @ self.gain.astype(np.float64)
        return mapped

    def apply(self, Y: ArrayLike, seed: int = 0) -> NDArray[np.float32]:
        """One mapped counterpart, (n, d), drawn for each target embedding, (n, d), from its content and the seed.

        Raises:
            InvalidInputError: wrong shape.
        """
        expected = self.expected(Y).astype(np.float32)
        mapped: NDArray[np.float32] = expected + row_normals(Y, seed) @ self.noise
        return mapped


def _mapped(of: Moments, weight: Matrix) -> Moments:
    """Of (y, ŷ) instead of (x, y); the map's intercept gives both the mean of y."""
    return Moments(of.count, of.mean_y, of.mean_y, of.yy, of.xy.T @ weight, weight.T @ of.xx @ weight)


def _unexplained(train: Moments, held_out: Moments, weight: Matrix, gain: Matrix) -> Matrix:
    """Scatter of (x − x̄)W − (y − ȳ)G over the rows held out, means those of the other rows."""
    cross = weight.T @ held_out.xy @ gain
    offset = (held_out.mean_x - train.mean_x) @ weight - (held_out.mean_y - train.mean_y) @ gain
    scatter: Matrix = weight.T @ held_out.xx @ weight - cross - cross.T + gain.T @ held_out.yy @ gain
    return scatter + held_out.count * np.outer(offset, offset)


def _factor(covariance: Matrix) -> Matrix:
    """The symmetric F with FᵀF the covariance, which moves little where that moves little.

    Rounding, and fewer rows than dimensions, leave eigenvalues a little below zero.
    """
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    factor: Matrix = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return factor


def _covariance(factor: NDArray[np.float32]) -> Matrix:
    wide = factor.astype(np.float64)
    covariance: Matrix = wide.T @ wide
    return covariance
