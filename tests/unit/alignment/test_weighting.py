"""Weights of public texts: by similarity to a description, and of texts released of a task."""

from __future__ import annotations

import numpy as np
import pytest

from sealign.alignment import RidgeStatistics, fit_ridge, public_names, similarity_weights, weigh_shared
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


def two_kinds(random: np.random.Generator, alike: bool) -> tuple[RidgeStatistics, RidgeStatistics, np.ndarray]:
    """Many public rows and few released ones of one relation or two, and the released ones' relation."""
    public, released = random.standard_normal((2, 6, 5))
    result = []
    for relation, count in ((released if alike else public, 3000), (released, 60)):
        x = random.standard_normal((count, 6))
        statistics = RidgeStatistics(6, 5)
        statistics.update(x, x @ relation + 0.5 * random.standard_normal((count, 5)))
        result.append(statistics)
    return *result, released


def lost(statistics: RidgeStatistics, relation: np.ndarray) -> float:
    learned = fit_ridge(statistics, source_fingerprint="s", target_fingerprint="t", public_set="p")
    return float(np.linalg.norm(learned.weight - relation))


def test_released_texts_weigh_more_where_public_ones_are_of_another_kind() -> None:
    public, released, relation = two_kinds(np.random.default_rng(3), alike=False)
    joined, weight = weigh_shared(public, released)
    assert weight == 30.0
    assert joined.rows == 3060
    assert joined.moments(*range(joined.folds)).count == pytest.approx(3000 + 30 * 60)
    assert lost(joined, relation) < 0.8 * lost(weigh_shared(public, released, (1.0,))[0], relation)


def test_released_texts_of_the_same_kind_do_no_harm() -> None:
    for seed in range(5):
        public, released, relation = two_kinds(np.random.default_rng(seed), alike=True)
        assert lost(weigh_shared(public, released)[0], relation) < 0.05 * np.linalg.norm(relation)


def test_weighed_statistics_are_those_of_weighted_rows_and_leave_the_others_alone() -> None:
    random = np.random.default_rng(5)
    x, y = random.standard_normal((70, 4)), random.standard_normal((70, 3))
    public, released, both = (RidgeStatistics(4, 3) for _ in range(3))
    public.update(x[:50], y[:50])
    released.update(x[50:], y[50:])
    both.update(x, y, np.where(np.arange(70) < 50, 1.0, 3.0))
    before = public.moments(0).xy.copy()
    joined, weight = weigh_shared(public, released, (3.0,))
    assert weight == 3.0
    for fold in range(5):
        for name in ("count", "mean_x", "mean_y", "xx", "xy", "yy"):
            mine, expected = getattr(joined.moments(fold), name), getattr(both.moments(fold), name)
            np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(public.moments(0).xy, before)


def test_too_few_released_texts_to_judge_by_count_once() -> None:
    public, released = RidgeStatistics(4, 3), RidgeStatistics(4, 3)
    random = np.random.default_rng(6)
    public.update(random.standard_normal((50, 4)), random.standard_normal((50, 3)))
    released.update(random.standard_normal((9, 4)), random.standard_normal((9, 3)))
    joined, weight = weigh_shared(public, released)
    assert (joined.rows, weight) == (59, 1.0)


def test_names_are_public_texts() -> None:
    names = public_names(("credit_limit-change", "comp.sys.mac", "LOC", "7", "__", "LOC"), "Questions, by intent.")
    assert names == ("credit limit change", "comp sys mac", "LOC", "Questions, by intent.")
    assert public_names(("1", "0")) == ()
