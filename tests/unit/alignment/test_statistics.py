from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealign.alignment import Moments, RidgeStatistics
from sealign.alignment import statistics as module
from sealign.errors import InvalidInputError

S, T = 4, 3


def pairs(rows: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return random.normal(2.0, 1.0, (rows, S)), random.normal(-1.0, 3.0, (rows, T))


def assert_same(actual: Moments, expected: Moments) -> None:
    assert actual.count == expected.count
    for name in ("mean_x", "mean_y", "xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), atol=1e-9)


def direct(x: NDArray[np.float64], y: NDArray[np.float64], fold: int, folds: int) -> Moments:
    """Textbook formulas over the rows of one fold."""
    x, y = x[fold::folds], y[fold::folds]
    n = len(x)
    return Moments(
        n,
        x.mean(0),
        y.mean(0),
        np.cov(x.T, bias=True) * n,
        np.cov(x.T, y.T, bias=True)[:S, S:] * n,
        np.cov(y.T, bias=True) * n,
    )


@settings(deadline=None, max_examples=40)
@given(
    chunks=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    folds=st.integers(2, 6),
    block=st.sampled_from([1, 7, 64]),
)
def test_chunks_do_not_matter(chunks: list[int], folds: int, block: int) -> None:
    rows = sum(chunks) + 2 * folds
    x, y = pairs(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ROWS", block)
        patch.setattr(module, "SAMPLE_ROWS", 5)
        streamed, whole = RidgeStatistics(S, T, folds), RidgeStatistics(S, T, folds)
        whole.update(x, y)
        start = 0
        for size in [*chunks, 2 * folds]:
            streamed.update(x[start : start + size], y[start : start + size])
            start += size
            streamed.moments(0)  # looking must not change anything
        for fold in range(folds):
            assert_same(streamed.moments(fold), whole.moments(fold))
            assert_same(streamed.moments(fold), direct(x, y, fold, folds))
        for mine, theirs in zip(streamed.held_out_sample(), whole.held_out_sample(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@settings(deadline=None, max_examples=20)
@given(first=st.integers(0, 50), second=st.integers(0, 50), later=st.integers(0, 20))
def test_merge_adds_fold_by_fold(first: int, second: int, later: int) -> None:
    a, b, c = pairs(first, 1), pairs(second, 2), pairs(later, 3)
    one, other = RidgeStatistics(S, T, 3), RidgeStatistics(S, T, 3)
    one.update(*a)
    other.update(*b)
    before = other.moments(0, 1, 2)
    one.merge(other)
    one.update(*c)
    assert one.rows == first + second + later
    # Rows after a merge go on with the round-robin from the total count.
    shift = (first + second) % 3
    for fold in range(3):
        expected = RidgeStatistics(S, T, 3).moments(0)
        for rows, start in ((a, fold), (b, fold), (c, (fold - shift) % 3)):
            if len(rows[0][start::3]):
                taken = (rows[0][start::3], rows[1][start::3])
                expected.add(Moments.of(*taken, np.ones(len(taken[0]))))
        assert_same(one.moments(fold), expected)
    assert_same(other.moments(0, 1, 2), before)


@settings(deadline=None, max_examples=20)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=40), chunk=st.integers(1, 50))
def test_a_row_of_weight_three_counts_as_three_rows(counts: list[int], chunk: int) -> None:
    x, y = pairs(len(counts))
    weighted = RidgeStatistics(S, T, 2)
    for start in range(0, len(counts), chunk):
        weighted.update(x[start : start + chunk], y[start : start + chunk], counts[start : start + chunk])
    assert weighted.rows == len(counts)
    for fold in range(2):
        repeats = counts[fold::2]
        if repeats:
            rows = np.repeat(x[fold::2], repeats, axis=0), np.repeat(y[fold::2], repeats, axis=0)
            assert_same(weighted.moments(fold), Moments.of(*rows, np.ones(sum(repeats))))


@pytest.mark.parametrize("weights", [0.0, -1.0, np.inf, np.nan, [1.0, 0.0]])
def test_weights_that_are_not_positive_are_refused_and_nothing_is_added(weights: float) -> None:
    statistics = RidgeStatistics(S, T)
    with pytest.raises(InvalidInputError, match="weights"):
        statistics.update(*pairs(2), weights)
    assert statistics.rows == 0


def test_a_distant_mean_costs_no_precision() -> None:
    x, y = pairs(5000)
    near, far = RidgeStatistics(S, T), RidgeStatistics(S, T)
    near.update(x, y)
    far.update(x + 1e7, y)
    np.testing.assert_allclose(far.moments(1).xx, near.moments(1).xx, rtol=1e-6)


def test_sample_is_bounded_uniform_and_from_fold_0() -> None:
    statistics = RidgeStatistics(1, 1, folds=2)
    index = np.arange(20000.0)[:, None]
    statistics.update(index, -index)
    x, y = statistics.held_out_sample()
    assert len(x) == module.SAMPLE_ROWS
    assert len(np.unique(x)) == len(x)
    assert not np.any(x % 2)
    np.testing.assert_array_equal(y, -x)
    assert abs(x.mean() - 10000) < 3 * 20000 / np.sqrt(12 * len(x))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, S + 1)), np.zeros((2, T)), r"source embeddings have shape \(2, 5\)"),
        (np.zeros((2, S)), np.zeros(2), r"target embeddings have shape \(2,\)"),
        (np.zeros((2, S)), np.zeros((3, T)), "2 source rows meet 3 target rows"),
        (np.full((2, S), np.nan), np.zeros((2, T)), "source embeddings: 2 rows are not finite"),
        (np.zeros((1, S)), np.full((1, T), np.inf), "target embeddings: 1 rows are not finite"),
        ([["a"] * S], np.zeros((1, T)), "source embeddings are not an array of real numbers"),
    ],
)
def test_bad_rows_are_refused_whole(x: object, y: object, message: str) -> None:
    statistics = RidgeStatistics(S, T)
    with pytest.raises(InvalidInputError, match=message):
        statistics.update(x, y)  # type: ignore[arg-type]
    assert statistics.rows == 0
    assert statistics.moments(*range(5)).count == 0


def test_merge_refuses_other_shapes() -> None:
    with pytest.raises(InvalidInputError, match="cannot be merged"):
        RidgeStatistics(S, T, 5).merge(RidgeStatistics(S, T, 4))


@pytest.mark.parametrize("arguments", [(0, 1, 5), (1, 0, 5), (1, 1, 1)])
def test_bad_dimensions(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInputError, match="at least"):
        RidgeStatistics(*arguments)
