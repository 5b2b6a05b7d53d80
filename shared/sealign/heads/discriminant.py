"""Linear discriminant heads from class means and covariances, which an affine map transforms exactly.

A head trained on the silo's embeddings meets mapped ones, which ridge regression shrinks and blurs. Class
statistics can be sent through that channel in closed form, noise included, so that the head is fitted to what it
will meet, for every map at once and without the training texts. The head is Fisher's (Hastie, Tibshirani and
Friedman, "The Elements of Statistical Learning", 2nd edition, section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.alignment import MappedChannel
from sealign.errors import InvalidInputError
from sealign.heads.linear import LinearHead, checked_rows, class_indices
from sealign.heads.served import ServedHead

Matrix = NDArray[np.float64]

_PUBLIC_SHARE = 0.2
"""Of the covariance that a head with a reject column takes for granted: the outliers' own share of it."""


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Sufficient statistics of labelled embeddings for a linear discriminant.

    Attributes:
        labels: one name a class.
        counts: rows of each class, (C,).
        means: of each class, (C, d).
        within: covariance about the class means, pooled over all rows, (d, d).

    Raises:
        InvalidInputError: shapes that do not fit together, numbers that are not finite, or no rows.
    """

    labels: tuple[str, ...]
    counts: Matrix
    means: Matrix
    within: Matrix

    def __post_init__(self) -> None:
        counts, means, within = (np.asarray(a, dtype=np.float64) for a in (self.counts, self.means, self.within))
        classes = len(self.labels)
        if (
            means.ndim != 2
            or counts.shape != (classes,)
            or len(means) != classes
            or within.shape != 2 * means.shape[1:]
        ):
            raise InvalidInputError(
                f"class statistics of {classes} classes have counts {counts.shape}, means {means.shape} and a "
                f"covariance {within.shape}, which do not fit together"
            )
        if not all(np.isfinite(array).all() for array in (counts, means, within)) or not counts.sum() > 0:
            raise InvalidInputError("class statistics hold numbers that are not finite, or are of no rows")
        for name, array in (("counts", counts), ("means", means), ("within", within)):
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, embeddings: ArrayLike, labels: Sequence[str], classes: Sequence[str]) -> ClassStatistics:
        """Of labelled embeddings, (n, d), in the order of ``classes``; a class may be absent.

        Raises:
            InvalidInputError: wrong shapes or numbers, or a label outside ``classes``.
        """
        x = checked_rows(embeddings)
        targets = class_indices(labels, classes, len(x))
        counts = np.bincount(targets, minlength=len(classes)).astype(np.float64)
        sums = np.zeros((len(classes), x.shape[1]))
        np.add.at(sums, targets, x)
        means = sums / np.maximum(counts, 1.0)[:, None]
        deviations = x - means[targets]
        return cls(tuple(classes), counts, means, deviations.T @ deviations / len(x))

    def merged(self, other: ClassStatistics) -> ClassStatistics:
        """Of the rows of both.

        Raises:
            InvalidInputError: the classes differ.
        """
        if other.labels != self.labels or other.means.shape != self.means.shape:
            raise InvalidInputError("statistics of different classes or dimensions cannot be merged")
        counts = self.counts + other.counts
        present = np.maximum(counts, 1.0)
        difference = other.means - self.means
        means = self.means + difference * (other.counts / present)[:, None]
        between = self.counts * other.counts / present
        scatter = self.within * self.counts.sum() + other.within * other.counts.sum()
        scatter += (between[:, None] * difference).T @ difference
        return ClassStatistics(self.labels, counts, means, scatter / counts.sum())

    def through(self, channel: MappedChannel) -> ClassStatistics:
        """Of the rows' mapped counterparts: exact means and covariances of what the channel makes of them.

        Raises:
            InvalidInputError: the channel is of another dimension.
        """
        means = channel.expected(self.means)
        gain = channel.gain.astype(np.float64)
        within = gain.T @ self.within @ gain + channel.noise_covariance
        return ClassStatistics(self.labels, self.counts, means, within)

    def simulated(self, count: int, seed: int = 0) -> tuple[Matrix, NDArray[np.intp]]:
        """Draw rows of Gaussian classes with these means and this covariance.

        Nothing but the statistics enters, so what is computed from the rows says no more than the statistics do. The
        randomness protects nothing; it is the same in every process.

        Args:
            count: about how many, in proportion to the classes' counts, at least one per class.
            seed: of the draw.

        Returns:
            Rows, (n, d), and each one's class, (n,).
        """
        number = np.maximum(np.round(count * self.counts / self.counts.sum()), 1).astype(int)
        targets = np.repeat(np.arange(len(number)), number)
        values, vectors = np.linalg.eigh(self.within)
        factor = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        normal = np.random.default_rng(seed).standard_normal((len(targets), len(values)))
        return self.means[targets] + normal @ factor, targets

    @property
    def mean(self) -> Matrix:
        """Of all rows, (d,)."""
        mean: Matrix = self.counts @ self.means / self.counts.sum()
        return mean

    @property
    def total(self) -> Matrix:
        """Covariance of all rows about their mean, (d, d)."""
        deviations = self.means - self.mean
        total: Matrix = self.within + (self.counts[:, None] * deviations).T @ deviations / self.counts.sum()
        return total


@dataclass(frozen=True, eq=False)
class Outliers:
    """What texts outside the task look like.

    Attributes:
        mean: of the embeddings of some general texts, (d,).
        covariance: of the same, (d, d).
    """

    mean: Matrix
    covariance: Matrix

    @classmethod
    def of(cls, embeddings: ArrayLike) -> Outliers:
        """Return the statistics of embeddings, (n, d).

        Raises:
            InvalidInputError: wrong shape, or numbers that are not finite.
        """
        rows = checked_rows(embeddings)
        centred = rows - rows.mean(axis=0)
        return cls(rows.mean(axis=0), centred.T @ centred / len(rows))

    def through(self, channel: MappedChannel) -> Outliers:
        """Return the statistics of the mapped counterparts.

        Raises:
            InvalidInputError: the channel is of another dimension.
        """
        gain = channel.gain.astype(np.float64)
        covariance = gain.T @ self.covariance @ gain + channel.noise_covariance
        return Outliers(channel.expected(self.mean[None])[0], covariance)


def discriminant_head(
    statistics: ClassStatistics, shrinkage: float, outliers: Outliers | None = None, directions: int = 0
) -> ServedHead:
    """Log-posteriors, up to a constant, of Gaussian classes with one covariance: a linear head.

    With Σ the covariance, shrunk to Σ + shrinkage·tr(Σ)/d·I, class k's weight is Σ⁻¹μₖ and its bias
    −μₖᵀΣ⁻¹μₖ/2 + log πₖ. Given outliers, there is a **reject column**, of one class more with the outliers' mean and
    the weight of all classes together (outlier exposure: Hendrycks, Mazeika and Dietterich, "Deep Anomaly Detection
    with Outlier Exposure", ICLR 2019), and a fifth of Σ is the outliers'. It is subtracted from the others, which
    changes no probability: logits become log-odds against outliers, whose own logit, zero, need not be computed, and
    their range, which what is common to all columns would fill, is several times smaller.

    ``directions`` adds the columns of a linear Mahalanobis score (Lee et al., "A Simple Unified Framework for
    Detecting Out-of-Distribution Samples", NeurIPS 2018, with one Gaussian for all classes): whitened coordinates in
    the directions in which outliers lie furthest from the task's texts, to be squared and summed.

    Args:
        statistics: of the embeddings that the head will meet.
        shrinkage: not negative.
        outliers: of the same embeddings.
        directions: of the Mahalanobis score, at most d; needs outliers.

    Raises:
        InvalidInputError: a class without rows, a negative shrinkage, embeddings that are all the same, or
            directions without outliers.
    """
    dimension = statistics.means.shape[1]
    if shrinkage < 0 or not 0 <= directions <= dimension or (directions and outliers is None):
        raise InvalidInputError(
            f"a discriminant head needs a shrinkage of at least 0 and 0 to {dimension} directions, the latter only "
            f"with outliers; not {shrinkage} and {directions}"
        )
    if not (statistics.counts > 0).all():
        absent = statistics.labels[int(np.argmin(statistics.counts))]
        raise InvalidInputError(f"class {absent!r} has no rows to fit a discriminant to; leave the class out")
    means, priors, covariance = statistics.means, statistics.counts / statistics.counts.sum(), statistics.within
    if outliers is not None:
        means = np.concatenate([means, outliers.mean[None]])
        priors = np.append(priors, 1.0)
        covariance = (1.0 - _PUBLIC_SHARE) * covariance + _PUBLIC_SHARE * outliers.covariance
    weight = np.linalg.solve(_shrunk(covariance, shrinkage), means.T)
    bias = np.log(priors) - np.sum(means * weight.T, axis=1) / 2
    if outliers is None:
        return ServedHead(LinearHead(weight, bias, statistics.labels))
    head = LinearHead(weight[:, :-1] - weight[:, -1:], bias[:-1] - bias[-1], statistics.labels)
    away = _directions(statistics, outliers, shrinkage, directions)
    return ServedHead(head, True, away, -statistics.mean @ away)


def _shrunk(covariance: Matrix, shrinkage: float) -> Matrix:
    dimension = len(covariance)
    scale = np.trace(covariance) / dimension
    if not scale > 0:
        raise InvalidInputError("the embeddings are all the same; check the encoder")
    # A little is always needed: with fewer rows than dimensions the covariance has no inverse.
    shrunk: Matrix = covariance + max(shrinkage, 1e-6) * scale * np.eye(dimension)
    return shrunk


def _directions(statistics: ClassStatistics, outliers: Outliers, shrinkage: float, count: int) -> Matrix:
    """V, (d, count): VᵀΣV = I for the task's covariance Σ, the outliers' mean square along V as large as can be."""
    if not count:
        return np.empty((len(statistics.mean), 0))
    root = np.linalg.cholesky(_shrunk(statistics.total, shrinkage))
    offset = outliers.mean - statistics.mean
    spread = np.linalg.solve(root, outliers.covariance + np.outer(offset, offset))
    _, vectors = np.linalg.eigh(np.linalg.solve(root, spread.T))
    chosen: Matrix = np.linalg.solve(root.T, vectors[:, len(vectors) - count :])
    return chosen
