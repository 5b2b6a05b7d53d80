"""All that ridge regression and its cross-validation need to know, in memory independent of n."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.errors import InvalidInputError

Matrix = NDArray[np.float64]

# Rows gathered before they are added up: a stream of single rows costs no more than large chunks.
BLOCK_ROWS = 1024
# Held-out rows kept as they are, for measures that moments cannot give.
SAMPLE_ROWS = 512


@dataclass
class Moments:
    """Count, means and centred scatter matrices of paired rows (x, y).

    ``xx`` (s, s), ``xy`` (s, t) and ``yy`` (t, t) are sums over rows of products of deviations from
    the mean. A row of weight w counts w times: ``count`` is the sum of weights. Keeping them centred
    avoids the cancellation of raw sums (Chan, Golub and LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979).
    """

    count: float
    mean_x: Matrix
    mean_y: Matrix
    xx: Matrix
    xy: Matrix
    yy: Matrix

    @classmethod
    def empty(cls, dim_source: int, dim_target: int) -> Moments:
        s, t = dim_source, dim_target
        return cls(0, np.zeros(s), np.zeros(t), np.zeros((s, s)), np.zeros((s, t)), np.zeros((t, t)))

    @classmethod
    def of(cls, X: Matrix, Y: Matrix, weights: Matrix) -> Moments:
        """Moments of at least one row; ``weights`` (n,), not all zero."""
        count = float(weights.sum())
        mean_x, mean_y = weights @ X / count, weights @ Y / count
        X, Y = X - mean_x, Y - mean_y
        weighted = weights[:, None] * X
        return cls(count, mean_x, mean_y, weighted.T @ X, weighted.T @ Y, Y.T @ (weights[:, None] * Y))

    def scaled(self, weight: float) -> Moments:
        """Moments of the same rows, each counted ``weight`` times."""
        scatter = (weight * matrix for matrix in (self.xx, self.xy, self.yy))
        return Moments(weight * self.count, self.mean_x, self.mean_y, *scatter)

    def add(self, other: Moments) -> None:
        """Make these the moments of both sets of rows together."""
        count = self.count + other.count
        if not other.count:
            return
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        between = self.count * other.count / count
        self.xx += other.xx + np.outer(between * dx, dx)
        self.xy += other.xy + np.outer(between * dx, dy)
        self.yy += other.yy + np.outer(between * dy, dy)
        self.mean_x = self.mean_x + dx * (other.count / count)
        self.mean_y = self.mean_y + dy * (other.count / count)
        self.count = count


class RidgeStatistics:
    """Streaming sufficient statistics of embedding pairs, one set of moments for each fold.

    Row i (counted over all updates) belongs to fold i mod ``folds``, so how a stream is cut into
    chunks changes nothing. Memory is about 8·folds·(s² + st + t²) bytes for dimensions s and t,
    whatever the number of rows. A uniform sample of at most 512 rows of fold 0 is kept as well.

    Attributes:
        public: statistics of the public texts alone, if texts of a task are weighed among them; these by default.

    Raises:
        InvalidInputError: a dimension below one or fewer than two folds.
    """

    def __init__(self, dim_source: int, dim_target: int, folds: int = 5) -> None:
        if min(dim_source, dim_target) < 1 or folds < 2:
            raise InvalidInputError(
                f"ridge statistics need dimensions of at least 1 and at least 2 folds, "
                f"not {dim_source}, {dim_target} and {folds}"
            )
        self.dim_source, self.dim_target, self.folds = dim_source, dim_target, folds
        self.rows = 0
        self.public = self
        self._moments = [Moments.empty(dim_source, dim_target) for _ in range(folds)]
        self._block_x = np.empty((BLOCK_ROWS, dim_source))
        self._block_y = np.empty((BLOCK_ROWS, dim_target))
        self._block_weights = np.empty(BLOCK_ROWS)
        self._pending = 0
        # Bottom-k sampling: rows with the smallest random priorities stay. It is uniform, does not
        # depend on chunks, and the samples of two streams merge into one.
        self._random = np.random.default_rng(0)
        self._sample_priority = np.empty(0)
        self._sample_x = np.empty((0, dim_source))
        self._sample_y = np.empty((0, dim_target))

    def update(self, X: ArrayLike, Y: ArrayLike, weights: ArrayLike = 1.0) -> None:
        """Add rows: ``X`` (n, dim_source) and ``Y`` (n, dim_target), row i of both the same text.

        Args:
            X: source rows.
            Y: target rows.
            weights: how often each row counts: positive numbers, (n,), or one for all rows.

        Raises:
            InvalidInputError: wrong shapes, numbers that are not finite, or weights that are not
                positive; nothing was added.
        """
        x = _checked(X, self.dim_source, "source")
        y = _checked(Y, self.dim_target, "target")
        if len(x) != len(y):
            raise InvalidInputError(f"{len(x)} source rows meet {len(y)} target rows; embed the same texts twice")
        w = np.broadcast_to(np.asarray(weights, dtype=np.float64), (len(x),))
        if not (np.isfinite(w) & (w > 0)).all():
            raise InvalidInputError("weights of embedding pairs must be positive and finite")
        first = -self.rows % self.folds
        self._sample(x[first :: self.folds], y[first :: self.folds])
        done = 0
        while done < len(x):
            take = min(BLOCK_ROWS - self._pending, len(x) - done)
            block = slice(self._pending, self._pending + take)
            self._block_x[block] = x[done : done + take]
            self._block_y[block] = y[done : done + take]
            self._block_weights[block] = w[done : done + take]
            self._pending += take
            self.rows += take
            done += take
            if self._pending == BLOCK_ROWS:
                self._flush()

    def merge(self, other: RidgeStatistics, weight: float = 1.0) -> None:
        """Add another stream's rows, fold by fold, each counted ``weight`` times; ``other`` stays as it is.

        Raises:
            InvalidInputError: dimensions or folds differ.
        """
        mine = (self.dim_source, self.dim_target, self.folds)
        theirs = (other.dim_source, other.dim_target, other.folds)
        if mine != theirs:
            raise InvalidInputError(f"statistics of (source, target, folds) {theirs} cannot be merged into {mine}")
        self._flush()
        for fold, moments in enumerate(self._moments):
            moments.add(other.moments(fold).scaled(weight))
        self.rows += other.rows
        self._keep_smallest(other._sample_priority, other._sample_x, other._sample_y)

    def moments(self, *folds: int) -> Moments:
        """Moments of all rows in the given folds."""
        total = Moments.empty(self.dim_source, self.dim_target)
        for fold in folds:
            total.add(self._moments[fold])
            rows = self._pending_rows(fold)
            if self._block_x[rows].size:
                total.add(Moments.of(self._block_x[rows], self._block_y[rows], self._block_weights[rows]))
        return total

    def held_out_sample(self) -> tuple[Matrix, Matrix]:
        """At most 512 rows of fold 0, drawn uniformly: (m, dim_source) and (m, dim_target)."""
        return self._sample_x, self._sample_y

    def _pending_rows(self, fold: int) -> slice:
        first = (fold - (self.rows - self._pending)) % self.folds
        return slice(first, self._pending, self.folds)

    def _flush(self) -> None:
        self._moments = [self.moments(fold) for fold in range(self.folds)]
        self._pending = 0

    def _sample(self, x: Matrix, y: Matrix) -> None:
        self._keep_smallest(self._random.random(len(x)), x, y)

    def _keep_smallest(self, priority: Matrix, x: Matrix, y: Matrix) -> None:
        priority = np.concatenate([self._sample_priority, priority])
        keep = np.sort(np.argsort(priority, kind="stable")[:SAMPLE_ROWS])
        self._sample_priority = priority[keep]
        self._sample_x = np.concatenate([self._sample_x, x])[keep]
        self._sample_y = np.concatenate([self._sample_y, y])[keep]


def _checked(rows: ArrayLike, dimension: int, side: str) -> Matrix:
    try:
        matrix = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{side} embeddings are not an array of real numbers") from None
    if matrix.ndim != 2 or matrix.shape[1] != dimension:
        raise InvalidInputError(f"{side} embeddings have shape {matrix.shape}; expected (rows, {dimension})")
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        raise InvalidInputError(
            f"{side} embeddings: {bad.size} rows are not finite, the first is row {bad[0]} of "
            "this chunk; check the encoder"
        )
    return matrix
