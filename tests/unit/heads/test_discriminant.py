from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from sealign.errors import InvalidInputError
from sealign.heads import ClassStatistics, Outliers, auroc, discriminant_head, softmax

from .planted import CLASSES, DIMENSION, Planted


def statistics_of(count: int = 4000, seed: int = 1) -> ClassStatistics:
    return ClassStatistics.of(*Planted().rows(count, seed), CLASSES)


def outliers() -> Outliers:
    public = Planted.public(4000, 2)
    return Outliers(public.mean(axis=0), np.cov(public.T, bias=True))


def test_probabilities_are_those_of_linear_discriminant_analysis() -> None:
    rows, labels = Planted().rows(2000, 1)
    queries = Planted().rows(300, 2)[0]
    reference = LinearDiscriminantAnalysis(solver="lsqr").fit(rows, labels)
    head = discriminant_head(ClassStatistics.of(rows, labels, CLASSES), 0.0).head
    np.testing.assert_allclose(softmax(head.logits(queries)), reference.predict_proba(queries), atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    first=st.integers(1, 40),
    second=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_merged_statistics_are_those_of_all_rows(first: int, second: int, seed: int) -> None:
    rows, labels = Planted().rows(first + second, seed)
    parts = [ClassStatistics.of(rows[part], labels[part], CLASSES) for part in (slice(0, first), slice(first, None))]
    merged, whole = parts[0].merged(parts[1]), ClassStatistics.of(rows, labels, CLASSES)
    for name in ("counts", "within", "mean", "total"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), atol=1e-9)
    present = whole.counts > 0
    np.testing.assert_allclose(merged.means[present], whole.means[present], atol=1e-9)
    np.testing.assert_allclose(whole.total, np.cov(rows.T, bias=True), atol=1e-9)


def test_statistics_go_through_a_channel_as_rows_do() -> None:
    channel, _ = Planted().channel()
    rows, labels = Planted().rows(60_000, 3)
    predicted = ClassStatistics.of(rows, labels, CLASSES).through(channel)
    drawn = ClassStatistics.of(channel.apply(rows), labels, CLASSES)
    np.testing.assert_allclose(predicted.means, drawn.means, atol=0.03)
    np.testing.assert_allclose(predicted.within, drawn.within, atol=0.03)


def test_logits_are_log_odds_against_outliers() -> None:
    """The same probabilities as with the outliers as a fourth class, whose column is then subtracted."""
    statistics, far = statistics_of(), outliers()
    queries = np.concatenate([Planted().rows(200, 4)[0], Planted.public(200, 5)])
    head = discriminant_head(statistics, 0.1, far)
    logits = head.head.logits(queries)
    covariance = 0.8 * statistics.within + 0.2 * far.covariance
    covariance += 0.1 * np.trace(covariance) / DIMENSION * np.eye(DIMENSION)
    means = np.concatenate([statistics.means, far.mean[None]])
    weight = np.linalg.solve(covariance, means.T)
    priors = np.append(statistics.counts / statistics.counts.sum(), 1.0)
    four = queries @ weight - np.sum(means * weight.T, axis=1) / 2 + np.log(priors)
    padded = np.concatenate([logits, np.zeros((len(queries), 1))], axis=1)
    np.testing.assert_allclose(softmax(padded), softmax(four), atol=1e-9)
    assert head.layout.reject


def test_scores_tell_outliers() -> None:
    head = discriminant_head(statistics_of(), 0.1, outliers(), directions=2)
    inside, outside = (head.layout.scores(head.outputs(x)) for x in (Planted().rows(500, 6)[0], Planted.public(500, 7)))
    assert list(inside) == ["reject_margin", "energy", "max_softmax", "max_logit", "mahalanobis"]
    for name in ("reject_margin", "energy", "mahalanobis"):
        assert auroc(inside[name], outside[name]) > 0.85, name


def test_directions_whiten_the_task_and_keep_what_tells_outliers() -> None:
    statistics = statistics_of()
    head = discriminant_head(statistics, 0.0, outliers(), directions=DIMENSION)
    coordinates = head.outputs(Planted().rows(20_000, 8)[0])[:, 3:]
    np.testing.assert_allclose(np.cov(coordinates.T), np.eye(DIMENSION), atol=0.1)
    np.testing.assert_allclose(coordinates.mean(axis=0), 0.0, atol=0.1)
    spread = np.mean(head.outputs(Planted.public(5000, 9))[:, 3:] ** 2, axis=0)
    two = discriminant_head(statistics, 0.0, outliers(), directions=2)
    kept = np.mean(two.outputs(Planted.public(5000, 9))[:, 3:] ** 2, axis=0)
    assert kept.sum() == pytest.approx(np.sort(spread)[-2:].sum(), rel=0.01)


def test_refusals() -> None:
    rows, labels = Planted().rows(50, 1)
    statistics = ClassStatistics.of(rows, labels, CLASSES)
    with pytest.raises(InvalidInputError, match="no rows to fit"):
        discriminant_head(ClassStatistics.of(rows, labels, (*CLASSES, "d")), 0.1)
    for shrinkage, count in ((-1.0, 0), (0.1, 1), (0.1, -1), (0.1, DIMENSION + 1)):
        with pytest.raises(InvalidInputError, match="needs a shrinkage"):
            discriminant_head(statistics, shrinkage, directions=count)
    with pytest.raises(InvalidInputError, match="all the same"):
        discriminant_head(ClassStatistics.of(np.ones((6, 2)), ["a", "b"] * 3, ("a", "b")), 0.1)
    with pytest.raises(InvalidInputError, match="different classes"):
        statistics.merged(ClassStatistics.of(rows, labels, CLASSES[::-1]))
    with pytest.raises(InvalidInputError, match="fit together"):
        ClassStatistics(CLASSES, statistics.counts, statistics.means, statistics.within[:2])
    with pytest.raises(InvalidInputError, match="not finite"):
        ClassStatistics(CLASSES, statistics.counts * np.nan, statistics.means, statistics.within)
