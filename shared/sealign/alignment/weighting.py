"""Weights of public texts: those that are nearer to a task count more."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sealign.alignment.regression import held_out_error
from sealign.alignment.statistics import Matrix, RidgeStatistics
from sealign.defaults import MAX_EXAMPLES
from sealign.errors import InvalidInputError

EFFECTIVE_SHARE = 0.5
"""Of the public texts, by default: below it a map loses more by seeing fewer texts than it wins by nearer ones."""

SHARED_WEIGHTS: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0)
"""How often a shared example may count against a public text."""

_SHARPEST = 100.0


def public_names(labels: Sequence[str], description: str = "") -> tuple[str, ...]:
    """Return a task's label names, and its description, as public texts: both are on its card anyway.

    Underscores, hyphens, dots and slashes of a name become spaces. Names without letters say nothing of
    the task and are left out, as are repeated ones. With them as shared examples (:func:`weigh_shared`), a map is
    learned where the task's classes are.

    Args:
        labels: of the task.
        description: for people; left out if empty.
    """
    spaced = (re.sub(r"[_\-./\\]+", " ", label) for label in labels)
    named = (" ".join(text.split()) for text in (*spaced, description))
    return tuple(dict.fromkeys(text for text in named if any(map(str.isalpha, text))))


def shared_names(labels: Sequence[str], most: int = MAX_EXAMPLES) -> tuple[str, ...]:
    """Return the names of a task's labels as a silo shares them with every client: at most so many, spread evenly."""
    names = public_names(labels)
    return tuple(names[row] for row in np.unique(np.linspace(0, len(names) - 1, most).round().astype(int)) if names)


def weigh_shared(
    public: RidgeStatistics, shared: RidgeStatistics, weights: Sequence[float] = SHARED_WEIGHTS
) -> tuple[RidgeStatistics, float]:
    """Join public texts and the few that are of a task: shared examples or names, which count more than a public one.

    They are what queries will be like, but among thousands of public ones they hardly move a map. Each weight is judged
    by how well a ridge map that is fitted without a fold predicts the shared texts in it.

    Args:
        public: statistics of the public texts.
        shared: of the shared texts, of the same dimensions and folds; fewer than two a fold count once.
        weights: to choose among; the first of equals.

    Returns:
        New statistics of both, and the weight of a shared text.

    Raises:
        InvalidInputError: dimensions or folds differ.
    """
    if shared.rows < 2 * shared.folds:
        return _joined(public, shared, 1.0), 1.0
    joined = [_joined(public, shared, weight) for weight in weights]
    errors = [held_out_error(both.moments, shared.moments, both.folds) for both in joined]
    best = int(np.argmin(errors))
    return joined[best], weights[best]


def _joined(public: RidgeStatistics, shared: RidgeStatistics, weight: float) -> RidgeStatistics:
    both = RidgeStatistics(public.dim_source, public.dim_target, public.folds)
    both.merge(public)
    both.merge(shared, weight)
    both.public = public
    return both


def similarity_weights(public: ArrayLike, described: ArrayLike, effective_share: float = EFFECTIVE_SHARE) -> Matrix:
    """exp(β·cosine) of each public text with the description, scaled to mean one.

    β is the largest, up to 100, that leaves an effective number of texts (Σw)²/Σw² (Kish, "Survey Sampling", 1965,
    section 11.7) of at least the given share, so that no few texts decide the map. The weights go into
    :meth:`RidgeStatistics.update`; both sides may publish or compute them.

    Args:
        public: embeddings of the public texts, (n, d).
        described: embeddings of the description, (m, d): one text or several, whose mean counts.
        effective_share: in (0, 1]; with 1 all weights are one.

    Returns:
        Positive weights, (n,).

    Raises:
        InvalidInputError: shapes that do not fit together, no rows, or a share out of bounds.
    """
    x, d = np.asarray(public, dtype=np.float64), np.asarray(described, dtype=np.float64)
    if x.ndim != 2 or d.ndim != 2 or x.shape[1] != d.shape[1] or not len(x) or not len(d):
        raise InvalidInputError(
            f"public texts' embeddings {x.shape} and the description's {d.shape} must be of one encoder, a row at least"
        )
    if not 0 < effective_share <= 1:
        raise InvalidInputError(f"an effective share of {effective_share} is not within (0, 1]")
    centred, towards = x - x.mean(axis=0), d.mean(axis=0) - x.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(towards)
    cosines = np.divide(centred @ towards, norms, out=np.zeros(len(x)), where=norms > 0)
    low, high = 0.0, _SHARPEST
    for _ in range(50):
        middle = (low + high) / 2
        weights = np.exp(middle * (cosines - cosines.max()))
        enough = weights.sum() ** 2 >= effective_share * len(x) * np.sum(weights**2)
        low, high = (middle, high) if enough else (low, middle)
    weights = np.exp(low * (cosines - cosines.max()))
    scaled: Matrix = weights / weights.mean()
    return scaled
