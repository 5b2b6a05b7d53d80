"""The affine map that ridge regression learns from public texts, and its quality."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np

from sealign.alignment.affine import AffineMap, MapQuality
from sealign.alignment.channel import MappedChannel
from sealign.alignment.regression import DEFAULT_PENALTIES, cross_validated_ridge
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
    total = statistics.moments(*range(statistics.folds))
    _check(statistics.rows, total, statistics.folds)
    fitted = cross_validated_ridge(statistics.moments, statistics.folds, penalties)
    sample_x, sample_y = statistics.held_out_sample()
    weight, intercept = fitted.without_first
    mean_cosine = _mean_cosine(sample_x @ weight + intercept, sample_y)
    return AffineMap(
        weight=fitted.weight,
        intercept=fitted.intercept,
        source_fingerprint=source_fingerprint,
        target_fingerprint=target_fingerprint,
        public_set=public_set,
        quality=MapQuality(
            explained_variance=1.0 - fitted.error / fitted.baseline,
            mean_cosine=mean_cosine,
            linear_cka=linear_cka(total),
            rows=statistics.rows,
            penalty=fitted.penalty,
        ),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        channel=MappedChannel.fit(statistics, fitted.weight, fitted.intercept),
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


def _check(rows: int, total: Moments, folds: int) -> None:
    if rows < 2 * folds:
        raise InvalidInputError(f"{rows} rows are too few for {folds} folds; give at least {2 * folds}")
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
