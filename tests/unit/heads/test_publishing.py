from __future__ import annotations

import numpy as np
import pytest

from sealign.heads import label_agreement, label_precision
from sealign.heads.publishing import published_fraction, published_threshold, standard_error


def test_a_fraction_moves_by_more_than_a_row_and_less_than_its_error() -> None:
    """One row moves it by 1/500; the noise is several times as large, and differs from draw to draw."""
    drawn = np.array([published_fraction(0.9, 500) for _ in range(2000)])
    assert len(set(drawn)) > 5
    np.testing.assert_allclose(drawn * 200, np.round(drawn * 200), atol=1e-9)
    assert drawn.mean() == pytest.approx(0.9, abs=0.001)
    assert 3 / 500 < drawn.std() < standard_error(0.9, 500)


def test_fractions_stay_fractions() -> None:
    assert all(0.0 <= published_fraction(fraction, 3) <= 1.0 for fraction in (0.0, 1.0) for _ in range(200))


def test_a_threshold_is_nobodys_score() -> None:
    scores = np.random.default_rng(0).normal(size=2000)
    drawn = np.array([published_threshold(scores) for _ in range(500)])
    assert not np.isin(drawn, scores).any()
    kept = [np.mean(scores >= threshold) for threshold in drawn]
    assert np.mean(kept) == pytest.approx(0.95, abs=0.003)
    assert 0.93 < min(kept) <= max(kept) < 0.97


def test_scores_that_are_all_the_same() -> None:
    assert published_threshold(np.ones(50)) == 1.0


def test_precision_leaves_labels_as_they_are() -> None:
    random = np.random.default_rng(1)
    for scale in (1.0, 1e-4):
        logits = scale * random.normal(size=(5000, 4))
        precision = label_precision(logits)
        assert label_agreement(logits, precision) >= 0.99
        assert label_agreement(logits, 4 * precision) < 0.99
        noisy = logits + random.uniform(-precision, precision, size=logits.shape)
        assert np.mean(noisy.argmax(1) == logits.argmax(1)) >= 0.99
    assert label_precision(np.zeros((5, 3))) == 2.0**-30
