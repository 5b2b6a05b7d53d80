"""The affine map that ridge regression learns from public texts, and its quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone

import numpy as np

from sealign.alignment.affine import AffineMap, MapQuality
from sealign.alignment.channel import MappedChannel
from sealign.alignment.regression import DEFAULT_PENALTIES, cross_validated_ridge, ridge_weight
from sealign.alignment.statistics import Matrix, Moments, RidgeStatistics
from sealign.errors import InvalidInputError


def fit_ridge(
    statistics: RidgeStatistics,
    penalties: Sequence[float] = DEFAULT_PENALTIES,
    *,
    source_fingerprint: str,
    target_fingerprint: str,
    public_set: str,
) -> AffineMap:
    """The affine map y = xW + b that minimises ‖Y − XW − b‖² + λ‖W‖² over all rows.

    The penalty is chosen by :func:`cross_validated_ridge`. The map carries the channel from the
    target encoder's own embeddings to mapped ones.

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
    check_statistics(statistics)
    fitted = cross_validated_ridge(statistics.moments, statistics.folds, penalties)
    return affine_map(
        statistics,
        fitted.weight,
        lambda moments: ridge_weight(moments, fitted.strength),
        penalty=fitted.penalty,
        explained_variance=1.0 - fitted.error / fitted.baseline,
        source_fingerprint=source_fingerprint,
        target_fingerprint=target_fingerprint,
        public_set=public_set,
    )


def affine_map(
    statistics: RidgeStatistics,
    weight: Matrix,
    refit: Callable[[Moments], Matrix],
    *,
    penalty: float,
    explained_variance: float,
    source_fingerprint: str,
    target_fingerprint: str,
    public_set: str,
    family: str = "ridge",
) -> AffineMap:
    """The map y − ȳ = (x − x̄)W over all rows, with its channel and its quality.

    Args:
        statistics: that it was fitted to.
        weight: W, (dim_source, dim_target).
        refit: the same map's weight for part of the rows.
        penalty, explained_variance: as in `MapQuality`.
        source_fingerprint, target_fingerprint, public_set: as in :func:`fit_ridge`.
        family: of the map.
    """
    total, train = statistics.moments(*range(statistics.folds)), statistics.moments(*range(1, statistics.folds))
    intercept = total.mean_y - total.mean_x @ weight
    sample_x, sample_y = statistics.held_out_sample()
    predicted = train.mean_y + (sample_x - train.mean_x) @ refit(train)
    return AffineMap(
        weight=weight,
        intercept=intercept,
        source_fingerprint=source_fingerprint,
        target_fingerprint=target_fingerprint,
        public_set=public_set,
        quality=MapQuality(
            explained_variance=explained_variance,
            mean_cosine=_mean_cosine(predicted, sample_y),
            linear_cka=linear_cka(total),
            rows=statistics.rows,
            penalty=penalty,
            family=family,
        ),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        channel=MappedChannel.fit(statistics, weight, refit),
    )


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


def _mean_cosine(predicted: Matrix, actual: Matrix) -> float:
    """Mean over rows of the cosine between two embeddings; a zero row counts as 0."""
    norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(actual, axis=1)
    products = np.sum(predicted * actual, axis=1)
    return float(np.mean(np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)))


def check_statistics(statistics: RidgeStatistics) -> None:
    """Refuse statistics that no map can be learned from.

    Raises:
        InvalidInputError: too few rows, rows that are all the same, or numbers too large to square.
    """
    total = statistics.moments(*range(statistics.folds))
    if statistics.rows < 2 * statistics.folds:
        raise InvalidInputError(
            f"{statistics.rows} rows are too few for {statistics.folds} folds; give at least {2 * statistics.folds}"
        )
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
