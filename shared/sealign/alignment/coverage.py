"""How well a public set covers a task, from one side's own embeddings, before anything is exchanged.

A map is learned where public texts are, and used where the task's are. All measures need only one encoder, so a silo
takes the texts that it trained on, and a client its own queries; nobody learns anything from anybody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sealign.alignment.statistics import Matrix
from sealign.errors import InvalidInputError

MINIMUM_TEXTS = 50
"""Of the task and of the public set; with fewer, covariances say nothing."""

_PENALTY = 0.1
"""Of the map's ridge regression, as cross-validation typically chooses it: a multiple of the mean eigenvalue."""

_BLOCK = 1024

_VERDICTS = (
    (0.905, "covers the task"),
    (0.86, "covers the task in part: nearer texts would help"),
    (-np.inf, "of another kind than the task: choose nearer texts"),
)
"""By the share of variance retained, at least.

`python -m tests.benchmarks.choices`: between all-MiniLM-L6-v2 and Google USE, each as client and as silo, on six tasks
and three public sets of 4,000 texts, the plain map lost 10, 21 and 37 points of accuracy against the silo's own encoder
in the three groups, a head fitted to the map 5, 9 and 14 (means).
"""


@dataclass(frozen=True)
class Coverage:
    """Measures of one public set for one task.

    Attributes:
        task_texts, public_texts: how many there are.
        retained: share of the task's variance that ridge regression over the public texts does not shrink away: along
            each of their principal directions, of variance v, v/(v + λ) of it.
        mean_distance: between the two means, in units of the task's root mean square distance from its own.
        auroc: how well a linear discriminant tells the two apart, on texts that it was not fitted to; 0.5 not at all.
        neighbour_cosines: 5 %, 50 % and 95 % quantiles, over the task's texts, of the cosine with the nearest public
            one.
        effective_texts: (Σw)²/Σw² of the public texts, w counting the task's texts to which one is nearest (Kish,
            "Survey Sampling", 1965, section 11.7): a few if the rest are of another kind.
    """

    task_texts: int
    public_texts: int
    retained: float
    mean_distance: float
    auroc: float
    neighbour_cosines: tuple[float, float, float]
    effective_texts: float

    @classmethod
    def of(cls, task: ArrayLike, public: ArrayLike) -> Coverage:
        """Of embeddings by the same encoder.

        Args:
            task: (n, d).
            public: (m, d).

        Raises:
            InvalidInputError: shapes that do not fit together, fewer than 50 rows of either, numbers that are not
                finite, or embeddings that are all the same.
        """
        t, p = _checked(task, "task"), _checked(public, "public")
        if t.shape[1] != p.shape[1]:
            raise InvalidInputError(
                f"task and public embeddings have {t.shape[1]} and {p.shape[1]} dimensions; embed both with one encoder"
            )
        quantiles, effective = _neighbours(t, p)
        return cls(
            task_texts=len(t),
            public_texts=len(p),
            retained=_retained(t, p),
            mean_distance=float(np.linalg.norm(t.mean(axis=0) - p.mean(axis=0)) / np.sqrt(t.var(axis=0).sum())),
            auroc=_auroc(*_held_out_scores(t, p)),
            neighbour_cosines=quantiles,
            effective_texts=effective,
        )

    @property
    def verdict(self) -> str:
        """In a line."""
        return next(line for bound, line in _VERDICTS if self.retained >= bound)


def _retained(task: Matrix, public: Matrix) -> float:
    values, vectors = np.linalg.eigh(np.cov(public, rowvar=False, bias=True))
    values = np.maximum(values, 0.0)
    along = ((task - task.mean(axis=0)) @ vectors).var(axis=0)
    kept = values / (values + _PENALTY * values.mean())
    return float(along @ kept / along.sum())


def _held_out_scores(task: Matrix, public: Matrix) -> tuple[Matrix, Matrix]:
    """Log-odds of being the task's, of every row, by Fisher's discriminant of the other half of the rows."""
    scores = np.empty(len(task)), np.empty(len(public))
    for half in (0, 1):
        t, p = task[1 - half :: 2], public[1 - half :: 2]
        mean_t, mean_p = t.mean(axis=0), p.mean(axis=0)
        within = (np.cov(t, rowvar=False, bias=True) + np.cov(p, rowvar=False, bias=True)) / 2
        within += _PENALTY * np.trace(within) / len(within) * np.eye(len(within))
        direction = np.linalg.solve(within, mean_t - mean_p)
        for rows, out in zip((task, public), scores, strict=True):
            out[half::2] = (rows[half::2] - (mean_t + mean_p) / 2) @ direction
    return scores


def _auroc(high: Matrix, low: Matrix) -> float:
    low = np.sort(low)
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.mean() / (2 * len(low)))


def _neighbours(task: Matrix, public: Matrix) -> tuple[tuple[float, float, float], float]:
    """Quantiles of the cosine with the nearest public text, and the effective number of nearest ones."""
    targets = _unit(public).T
    cosines, counts = np.empty(len(task)), np.zeros(len(public))
    for start in range(0, len(task), _BLOCK):
        similarity = _unit(task[start : start + _BLOCK]) @ targets
        cosines[start : start + _BLOCK] = similarity.max(axis=1)
        counts += np.bincount(similarity.argmax(axis=1), minlength=len(public))
    low, median, high = np.quantile(cosines, (0.05, 0.5, 0.95))
    return (float(low), float(median), float(high)), float(counts.sum() ** 2 / np.sum(counts**2))


def _unit(rows: Matrix) -> Matrix:
    unit: Matrix = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _checked(rows: ArrayLike, kind: str) -> Matrix:
    matrix = np.asarray(rows, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) < MINIMUM_TEXTS:
        raise InvalidInputError(
            f"{kind} embeddings have shape {matrix.shape}; give at least {MINIMUM_TEXTS} texts, so (rows, dimension)"
        )
    if not np.isfinite(matrix).all():
        raise InvalidInputError(f"{kind} embeddings hold numbers that are not finite; check the encoder")
    if not matrix.var(axis=0).sum() > 0:
        raise InvalidInputError(f"{kind} embeddings are all the same; check the encoder and the texts")
    return matrix
