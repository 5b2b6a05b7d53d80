from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import roc_auc_score, roc_curve

from sealign.errors import InvalidInputError
from sealign.heads import (
    SCORES,
    auroc,
    energy,
    fpr_at_95,
    max_logit,
    max_softmax,
    softmax,
    threshold_at_95,
)

# Few distinct values, so that ties are common.
VALUES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=60)


def test_scores_equal_scipy() -> None:
    logits = np.random.default_rng(0).normal(0, 10, (50, 6))
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=1))
    np.testing.assert_allclose(energy(logits), logsumexp(logits, axis=1))
    np.testing.assert_allclose(energy(logits, 2.5), 2.5 * logsumexp(logits / 2.5, axis=1))
    np.testing.assert_allclose(max_softmax(logits), scipy_softmax(logits, axis=1).max(1))
    np.testing.assert_array_equal(max_logit(logits), logits.max(1))
    assert set(SCORES) == {"energy", "max_softmax", "max_logit"}


def test_scores_of_huge_logits_are_finite() -> None:
    logits = np.array([[1e5, -1e5], [-1e5, -1e5]])
    for score in SCORES.values():
        assert np.isfinite(score(logits)).all()
    np.testing.assert_allclose(energy(logits), [1e5, -1e5 + np.log(2)])


@settings(deadline=None)
@given(VALUES, VALUES)
def test_auroc_and_fpr_equal_scikit_learn(inliers: list[float], outliers: list[float]) -> None:
    truth = np.r_[np.ones(len(inliers)), np.zeros(len(outliers))]
    scores = np.r_[inliers, outliers]
    assert auroc(inliers, outliers) == pytest.approx(roc_auc_score(truth, scores))
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert fpr_at_95(inliers, outliers) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])


@given(VALUES)
def test_threshold_is_the_largest_that_95_percent_reach(inliers: list[float]) -> None:
    scores = np.array(inliers)
    threshold = threshold_at_95(inliers)
    assert 100 * np.sum(scores >= threshold) >= 95 * len(scores)
    assert 100 * np.sum(scores > threshold) < 95 * len(scores)


def test_known_answers() -> None:
    assert auroc([3, 4], [1, 2]) == 1.0
    assert auroc([1, 2], [3, 4]) == 0.0
    assert auroc([1, 1], [1]) == 0.5
    assert auroc([1, 3], [2]) == 0.5
    inliers = np.arange(100.0)
    assert threshold_at_95(inliers) == 5.0
    assert fpr_at_95(inliers, [4.9, 5.0, 6.0, 7.0]) == 0.75


def test_auroc_of_many_scores_is_quick() -> None:
    random = np.random.default_rng(1)
    started = time.perf_counter()
    value = auroc(random.normal(1, 1, 300_000), random.normal(0, 1, 300_000))
    assert time.perf_counter() - started < 5  # all pairs would be 9e10
    assert value == pytest.approx(0.7602, abs=0.003)  # Φ(1/√2)


@pytest.mark.parametrize(("inliers", "outliers"), [([], [1]), ([1], []), ([np.nan], [1])])
def test_unusable_scores(inliers: list[float], outliers: list[float]) -> None:
    for measure in (auroc, fpr_at_95):
        with pytest.raises(InvalidInputError, match="scores must be finite"):
            measure(inliers, outliers)
