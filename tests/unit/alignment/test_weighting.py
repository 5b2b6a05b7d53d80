"""Weights of public texts by similarity to a description."""

from __future__ import annotations

import numpy as np
import pytest

from sealign.alignment import RidgeStatistics, fit_ridge, similarity_weights
from sealign.errors import InvalidInputError


def effective(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / np.sum(weights**2) / len(weights))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_nearest_count_most_and_enough_remain(share: float) -> None:
    random = np.random.default_rng(0)
    public, described = random.standard_normal((500, 8)), random.standard_normal((1, 8))
    weights = similarity_weights(public, described, share)
    assert effective(weights) == pytest.approx(share, abs=1e-6)
    assert weights.mean() == pytest.approx(1.0)
    centred = public - public.mean(axis=0)
    towards = (described - public.mean(axis=0))[0]
    cosines = centred @ towards / np.linalg.norm(centred, axis=1)
    assert (np.argsort(weights) == np.argsort(cosines)).all()


def test_a_share_of_one_and_texts_that_are_all_alike_weigh_the_same() -> None:
    random = np.random.default_rng(1)
    public = random.standard_normal((50, 4))
    assert similarity_weights(public, public[:1], 1.0) == pytest.approx(np.ones(50), abs=1e-3)
    assert similarity_weights(np.ones((50, 4)), public[:1]) == pytest.approx(np.ones(50))


def test_weights_make_the_map_better_where_the_description_points() -> None:
    """The relation differs between two kinds of text; one linear map cannot be right for both."""
    random = np.random.default_rng(2)
    kind = random.random(2000) < 0.5
    x = random.standard_normal((2000, 6)) * 0.3 + np.where(kind, 2.0, -2.0)[:, None]
    first, second = random.standard_normal((2, 6, 5))
    y = np.where(kind[:, None], x @ first, x @ second) + 0.1 * random.standard_normal((2000, 5))
    new = random.standard_normal((200, 6)) * 0.3 + 2.0
    errors = []
    for weights in (np.ones(2000), similarity_weights(x, np.full((1, 6), 2.0))):
        statistics = RidgeStatistics(6, 5)
        statistics.update(x, y, weights)
        learned = fit_ridge(statistics, source_fingerprint="s", target_fingerprint="t", public_set="p")
        errors.append(np.linalg.norm(learned.apply(new) - new @ first))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("public", "described", "share", "message"),
    [
        (np.ones((5, 3)), np.ones((1, 4)), 0.5, "of one encoder"),
        (np.ones((5, 3)), np.ones((0, 3)), 0.5, "a row at least"),
        (np.ones(3), np.ones((1, 3)), 0.5, "of one encoder"),
        (np.ones((5, 3)), np.ones((1, 3)), 0.0, r"not within \(0, 1\]"),
        (np.ones((5, 3)), np.ones((1, 3)), 1.5, r"not within \(0, 1\]"),
    ],
)
def test_bad_input(public: np.ndarray, described: np.ndarray, share: float, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        similarity_weights(public, described, share)
