"""Ridge regression from a cross-covariance alone: what a client has after alignment under encryption.

The client knows its own embeddings X of the public texts. Of the silo's, Y, it gets the cross-covariance
XᵀY of centred rows and the number ‖Y‖², and no more: not Y, not its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from sealign.alignment.affine import AffineMap, MapQuality
from sealign.alignment.map_covariances import MapCovariances
from sealign.alignment.regression import DEFAULT_PENALTIES, Spectrum, checked_penalties
from sealign.alignment.statistics import Matrix
from sealign.errors import InvalidInputError
from sealign.files import row_parts

TEXTS_PER_DIMENSION = 4
"""Public texts for each dimension of the wider encoder; with fewer, the target's embeddings could be solved for."""

MAP_TOLERANCE = 1e-3
"""Movement of a map, as a share of its norm, that errors of the product may cause."""

MASKED_TOLERANCE = 0.1
"""The same for a masked product, of which the silo is told covariances. They are averages, and move far less."""


def require_enough_texts(rows: int, dim_source: int, dim_target: int) -> None:
    """Refuse a public set that is too small to release a cross-covariance over.

    Raises:
        InvalidInputError: fewer than 4·max(dim_source, dim_target) rows.
    """
    needed = TEXTS_PER_DIMENSION * max(dim_source, dim_target)
    if rows < needed:
        raise InvalidInputError(
            f"encrypted alignment of {dim_source} with {dim_target} dimensions needs at least {needed} public texts, "
            f"this set has {rows}: with fewer, the silo's embeddings could be solved for. Use a larger public set, "
            "or plain alignment."
        )


def mapped_row_norm(Y: np.typing.ArrayLike) -> float:
    """Longest row that a client may send after it has applied such a map, given the silo's embeddings (n, t).

    Mapped rows are centred, so at most twice as long as the longest of these; a power of two tells no more.
    """
    longest = max(np.linalg.norm(part.astype(np.float64), axis=1).max() for part in row_parts(np.asarray(Y)))
    return float(2.0 ** (1 + ceil(log2(longest) - 1e-3)))


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """The client's embeddings as the encrypted product takes them: centred, transposed, of norm one.

    They are made when they are needed, so that embeddings mapped from a file need not be in memory.

    Attributes:
        mean: of the embeddings, shape (s,).
        scales: norm of each dimension over the texts, shape (s,); zero for one that does not vary.
        gram: products of :attr:`rows` with one another, shape (s, s).
    """

    mean: Matrix
    scales: Matrix
    gram: Matrix
    _embeddings: NDArray[np.floating]

    @classmethod
    def of(cls, X: np.typing.ArrayLike) -> ScaledRows:
        """Scale embeddings X, shape (n, s), which are retained.

        Raises:
            InvalidInputError: numbers that are not finite, or rows that are all the same.
        """
        x = np.asarray(X)
        mean = _finite_total(x) / len(x)
        products = np.zeros((x.shape[1], x.shape[1]))
        for part in row_parts(x):
            centred = part - mean
            products += centred.T @ centred
        scales = np.sqrt(np.diag(products))
        # Below this, what varies is the rounding of the mean.
        scales[scales <= 1e-12 * np.sqrt(len(x)) * np.abs(mean)] = 0.0
        if not scales.any():
            raise InvalidInputError("embeddings of the public set are all the same; check the encoder")
        inverse = _inverse(scales)
        return cls(mean, scales, products * inverse * inverse[:, None], x)

    @property
    def count(self) -> int:
        """Number of texts."""
        return len(self._embeddings)

    @property
    def rows(self) -> Matrix:
        """All rows, (s, n): row i is dimension i over all texts, centred and divided by its scale."""
        return self.columns(0, self.count)

    def columns(self, first: int, last: int) -> Matrix:
        """Return the rows over some texts, shape (s, last - first)."""
        columns: Matrix = ((self._embeddings[first:last] - self.mean) * _inverse(self.scales)).T
        return columns


def _finite_total(x: NDArray[np.floating]) -> Matrix:
    """Return the sum of all rows.

    Raises:
        InvalidInputError: a number that is not finite.
    """
    total, done = np.zeros(x.shape[1]), 0
    for part in row_parts(x):
        bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
        if bad.size:
            raise InvalidInputError(
                f"embeddings of the public set: row {done + bad[0]} is not finite; check the encoder"
            )
        total += part.sum(axis=0, dtype=np.float64)
        done += len(part)
    return total


def _inverse(scales: Matrix) -> Matrix:
    """Return what to multiply by, and zero for zero."""
    return np.divide(1.0, scales, out=np.zeros_like(scales), where=scales > 0)


def fit_cross_covariance(
    source: ScaledRows,
    product: Matrix,
    squared_norm: float,
    error: float,
    penalties: Sequence[float] = DEFAULT_PENALTIES,
    *,
    tolerance: float = MAP_TOLERANCE,
    source_fingerprint: str,
    target_fingerprint: str,
    public_set: str,
) -> AffineMap:
    """The ridge map y − ȳ = (x − x̄)W; its intercept is −x̄W, since the silo keeps ȳ to itself.

    The penalty minimises generalised cross-validation (`Spectrum.generalised_error`). Penalties so weak that errors of
    the product would be expected to move the map by more than ``tolerance`` of its norm are left out.

    Args:
        source: the client's embeddings.
        product: scaled rows times the silo's centred embeddings, shape (s, t), as decrypted.
        squared_norm: ‖Y‖², the sum of squares of the silo's centred embeddings.
        error: standard deviation of an entry's error.
        penalties: multiples of the mean eigenvalue of XᵀX; by default 1e-6 to 1e2.
        tolerance: expected error of the map, in proportion to its norm.
        source_fingerprint: of the client's encoder.
        target_fingerprint: of the silo's encoder.
        public_set: digest of the texts.

    Raises:
        InvalidInputError: numbers that contradict one another, or embeddings too ill-conditioned for the precision.
    """
    ratios = checked_penalties(penalties)
    count = source.count
    if product.ndim != 2 or len(product) != len(source.scales) or not np.isfinite(product).all():
        raise InvalidInputError(
            f"the silo's cross-covariance has shape {product.shape} or holds numbers that are not finite; "
            f"{len(source.scales)} finite rows are expected. No map was made."
        )
    products = source.gram * source.scales * source.scales[:, None]
    spectrum = Spectrum(products, product * source.scales[:, None])
    unit = float(np.mean(spectrum.values))
    spread = np.sqrt(product.shape[1]) * error * spectrum.vectors.T * source.scales
    best, score = _best_penalty(spectrum, ratios * unit, squared_norm, count, spread, tolerance)
    weight = spectrum.weight(ratios[best] * unit)
    baseline = squared_norm / count / (1.0 - 1.0 / count) ** 2
    return AffineMap(
        weight=weight,
        intercept=-source.mean @ weight,
        source_fingerprint=source_fingerprint,
        target_fingerprint=target_fingerprint,
        public_set=public_set,
        quality=MapQuality(
            explained_variance=float(1.0 - score / baseline),
            mean_cosine=None,
            linear_cka=None,
            rows=count,
            penalty=float(ratios[best]),
        ),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        covariances=MapCovariances(
            *(
                (matrix / count).astype(np.float32)
                for matrix in ((product * source.scales[:, None]).T @ weight, weight.T @ products @ weight)
            )
        ),
    )


def _best_penalty(
    spectrum: Spectrum, penalties: Matrix, squared_norm: float, count: int, spread: Matrix, tolerance: float
) -> tuple[int, float]:
    """The index of the penalty with the smallest generalised error among those that the precision permits, and that.

    Raises:
        InvalidInputError: numbers that contradict one another, or a precision that permits none.
    """
    scores = np.full(len(penalties), np.inf)
    for index, lam in enumerate(penalties):
        d = 1.0 / (spectrum.values + lam)
        if not spectrum.residual(lam, squared_norm) >= -tolerance * squared_norm:
            raise InvalidInputError(
                "the silo's cross-covariance explains more than all of its embeddings' spread: its numbers contradict "
                "one another. No map was made."
            )
        if np.linalg.norm(spread * d[:, None]) <= tolerance * np.linalg.norm(spectrum.target * d[:, None]):
            scores[index] = spectrum.generalised_error(lam, squared_norm, count)
    best = int(np.argmin(scores))
    if not np.isfinite(scores[best]):
        raise InvalidInputError(
            "the precision of the silo's cross-covariance does not determine a map: the two encoders have nothing in "
            "common over this public set, or its embeddings hardly vary. No map was made."
        )
    return best, float(scores[best])
