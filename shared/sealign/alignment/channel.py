"""What an affine map makes of the silo's embeddings: a linear-Gaussian model of y → ŷ.

The silo has labelled embeddings y of its own encoder, but serves mapped embeddings ŷ = xW + b of a
client's, which ridge regression shrinks and the other encoder blurs. Thresholds and temperatures
measured on y do not hold for ŷ; measured on y sent through this channel, they do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.alignment.content import row_normals
from sealign.alignment.regression import DEFAULT_PENALTIES, Spectrum, checked_penalties, cross_validated_ridge
from sealign.alignment.statistics import Matrix, Moments, RidgeStatistics
from sealign.errors import InvalidInputError

_REACH = 0.1
"""Of the public texts' mean eigenvalue: variance below it counts as none."""


@dataclass(frozen=True, eq=False)
class MapCovariances:
    """What a client that applies its own map can tell the silo about it, so that a channel can be fitted.

    With centred rows X of the client and Y of the silo, H = X(XᵀX + λ)⁻¹Xᵀ and Ŷ = HY, these are YᵀHY/n and
    YᵀH²Y/n. They depend on the client's encoder through H alone, which every rotation of its embedding space leaves
    as it is, and on no text but the public ones.

    Attributes:
        cross: covariance of target embeddings and their mapped counterparts, (d, d), symmetric for a ridge map;
            float32, read-only.
        mapped: covariance of the mapped counterparts, (d, d), float32, read-only.

    Raises:
        InvalidInputError: matrices that are not square and alike, not symmetric, or not finite.
    """

    cross: NDArray[np.float32]
    mapped: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("cross", "mapped"):
            array = np.array(getattr(self, name), dtype=np.float32)
            if array.ndim != 2 or not array.size or array.shape != np.shape(self.mapped)[::-1]:
                raise InvalidInputError(f"a map's covariances must be square and alike; {name} has shape {array.shape}")
            if not np.isfinite(array).all():
                raise InvalidInputError(f"a map's covariances hold numbers that are not finite ({name}); align again")
            array = array / 2 + array.T / 2  # no overflow, however large they are
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def dimension(self) -> int:
        return len(self.cross)


@dataclass(frozen=True, eq=False)
class MappedChannel:
    """ŷ = m + (y − m)·gain + ε, ε ~ N(0, noiseᵀ·noise): mapped counterparts of target embeddings.

    The gain is the ridge regression of mapped on target embeddings over the public set, its penalty
    chosen by cross-validation (with little of it, the gain fits the public texts and is too faithful or
    too faint for others); the noise is what covariance the mapped ones have beyond that. So
    counterparts of the public texts have exactly the mean and covariance of their mapped embeddings.

    Attributes:
        mean: m, (d,), of the public texts' target embeddings; float32, read-only. It is the mean of
            their mapped ones as well: a map's intercept sees to it.
        gain: (d, d), float32, read-only.
        noise: (d, d), a factor of the noise's covariance, float32, read-only.
        spread: (d, d), a factor of the covariance of the public texts' target embeddings, float32, read-only.

    Raises:
        InvalidInputError: shapes that do not fit together, or numbers that are not finite.
    """

    ARRAYS: ClassVar = ("mean", "gain", "noise", "spread")

    mean: NDArray[np.float32]
    gain: NDArray[np.float32]
    noise: NDArray[np.float32]
    spread: NDArray[np.float32]

    def __post_init__(self) -> None:
        square = (self.dimension, self.dimension)
        for name, shape in (("mean", square[:1]), ("gain", square), ("noise", square), ("spread", square)):
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
        return cls(*(array.astype(np.float32) for array in (mean, gain, np.sqrt(variance) * gain, _factor(covariance))))

    @classmethod
    def fit(cls, statistics: RidgeStatistics, weight: Matrix, intercept: Matrix) -> MappedChannel:
        """The channel of a map, from the statistics that it was learned from.

        Args:
            statistics: of source rows x and target rows y that are not all the same; fewer rows than
                dimensions are fine.
            weight: W of the map, (dim_source, dim_target).
            intercept: b of the map, (dim_target,).
        """

        def moments(*folds: int) -> Moments:
            """Of (y, xW + b) instead of (x, y)."""
            of = statistics.moments(*folds)
            mapped = weight.T @ of.xx @ weight
            return Moments(of.count, of.mean_y, of.mean_x @ weight + intercept, of.yy, of.xy.T @ weight, mapped)

        gain = cross_validated_ridge(moments, statistics.folds).weight
        total = moments(*range(statistics.folds))
        return cls._of(total.mean_x, gain, total.xx / total.count, total.yy / total.count)

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
        return cls._of(mean, spectrum.weight(best), own, mapped)

    @classmethod
    def _of(cls, mean: Matrix, gain: Matrix, own: Matrix, mapped: Matrix) -> MappedChannel:
        """From covariances: what the gain leaves of the mapped embeddings' is noise."""
        noise = mapped - gain.T @ own @ gain
        # The map's intercept gives mapped and target embeddings the same mean.
        return cls(*(array.astype(np.float32) for array in (mean, gain, _factor(noise), _factor(own))))

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
        by more: between all-MiniLM-L6-v2 and Google USE, on 48 tasks and public sets, noise that is as many times as
        large (:meth:`noisier`) brings the error of a predicted accuracy from 5.7 to 4.2 points (means).

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
        """Return the channel with so many times the noise's covariance."""
        return replace(self, noise=self.noise * np.float32(np.sqrt(factor)))

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
