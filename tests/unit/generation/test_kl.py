from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import AffineMap, RidgeStatistics, fit_ridge
from sealign.encoders.causal import OutputHead
from sealign.errors import InvalidInputError
from sealign.generation import measure_agreement
from sealign.generation.kl import refine_by_divergence

S, T, V, N = 12, 10, 40, 3000


@pytest.fixture(scope="module")
def states() -> tuple[np.ndarray, np.ndarray, OutputHead]:
    """The head reads 3 of the silo's 10 directions, and those are the faint ones."""
    random = np.random.default_rng(0)
    X = random.normal(size=(N, S)).astype(np.float32)
    Y = (np.tanh(X @ random.normal(size=(S, T))) + 0.3 * random.normal(size=(N, T))) * np.array([5.0] * 7 + [0.5] * 3)
    weight = np.zeros((V, T))
    weight[:, 7:] = 6 * random.normal(size=(V, 3))
    return X, Y.astype(np.float32), OutputHead(weight.astype(np.float32), random.normal(size=V).astype(np.float32))


@pytest.fixture(scope="module")
def ridge(states: tuple[np.ndarray, np.ndarray, OutputHead]) -> AffineMap:
    statistics = RidgeStatistics(S, T)
    statistics.update(states[0][:2000], states[1][:2000])
    return fit_ridge(statistics, source_fingerprint="s", target_fingerprint="t", public_set="p")


def divergence(learned: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead], rows: slice) -> float:
    X, Y, head = states
    return measure_agreement(head, learned.apply(X[rows]), Y[rows], np.zeros(len(X[rows]), dtype=np.int64)).divergence


def test_it_lowers_the_divergence_on_rows_it_never_saw(
    ridge: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead]
) -> None:
    X, Y, head = states
    told: list[int] = []
    refined = refine_by_divergence(ridge, head, X[:2000], Y[:2000], epochs=10, progress=told.append)
    assert sum(told) == 10 * 1800
    assert len(refined.divergences) == 11
    assert refined.best > 0
    unseen = slice(2000, None)
    assert divergence(refined.map, states, unseen) < 0.9 * divergence(ridge, states, unseen)
    held_out = slice(1800, 2000)
    assert divergence(ridge, states, held_out) == pytest.approx(refined.divergences[0], rel=1e-3)
    assert divergence(refined.map, states, held_out) == pytest.approx(refined.divergences[refined.best], rel=1e-3)
    assert refined.map.channel is None
    assert refined.map.quality.family == "refined"
    assert refined.map.quality.divergence == refined.divergences[refined.best]
    assert (refined.map.quality.linear_cka, refined.map.quality.rows) == (ridge.quality.linear_cka, 2000)


def test_the_refined_maps_quality_is_its_own(
    ridge: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead]
) -> None:
    """As rows say that neither map has seen: it predicts better what the head reads, and states worse."""
    X, Y, _ = states
    head = OutputHead(np.random.default_rng(5).normal(size=(V, T)).astype(np.float32), None)
    refined = refine_by_divergence(ridge, head, X[:2000], Y[:2000], epochs=10, step=0.3).map

    def measured(learned: AffineMap) -> tuple[float, float]:
        own, predicted = Y[2000:], learned.apply(X[2000:])
        cosines = (own * predicted).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(predicted, axis=1)
        return 1 - np.square(own - predicted).sum() / np.square(own - own.mean(axis=0)).sum(), cosines.mean()

    (before, cosine_before), (after, cosine) = measured(ridge), measured(refined)
    assert after < before - 0.05
    assert refined.quality.explained_variance == pytest.approx(after, abs=abs(after - before) / 2)
    assert refined.quality.mean_cosine == pytest.approx(cosine, abs=abs(cosine - cosine_before) / 2)


def test_it_stops_when_held_out_rows_are_predicted_no_better(
    ridge: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead]
) -> None:
    X, _, head = states
    told: list[int] = []
    Y = ridge.apply(X[:500]).astype(np.float32)  # nothing is better than the given map
    refined = refine_by_divergence(ridge, head, X[:500], Y, epochs=9, patience=2, progress=told.append)
    assert refined.best == 0
    assert len(refined.divergences) == 4  # the given map's, and two epochs that are taken back before the last
    assert sum(told) == 3 * 450


def test_steps_that_are_too_large_are_taken_back_and_become_smaller(
    ridge: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead]
) -> None:
    X, Y, head = states
    before, first, *rest = refine_by_divergence(ridge, head, X, Y, epochs=5, step=2.0).divergences
    assert first > before
    assert min(rest) < before


def test_rows_mapped_from_a_file_give_the_same_map(
    ridge: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead], tmp_path: Path
) -> None:
    X, Y, head = states
    half = X[:1000].astype(np.float16)
    np.save(tmp_path / "half.npy", half)
    mapped = np.load(tmp_path / "half.npy", mmap_mode="r")
    found, expected = (refine_by_divergence(ridge, head, x, Y[:1000], epochs=1).map for x in (mapped, half.astype("f")))
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-5, atol=1e-7)
    assert found.quality == expected.quality


def test_a_seed_decides(ridge: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead]) -> None:
    X, Y, head = states
    first, again, other = (
        refine_by_divergence(ridge, head, X[:1000], Y[:1000], epochs=1, seed=seed).map for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.weight, again.weight)
    assert np.abs(first.weight - other.weight).max() > 0


def test_a_map_that_is_best_as_it_is_stays(ridge: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead]) -> None:
    X, _, head = states
    refined = refine_by_divergence(ridge, head, X[:500], ridge.apply(X[:500]).astype(np.float32), epochs=2)
    assert refined.best == 0
    assert refined.map is ridge
    assert refined.divergences[0] == pytest.approx(0, abs=1e-4)


def test_a_large_head_is_judged_by_its_likeliest_outputs(
    ridge: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead]
) -> None:
    X, Y, head = states
    assert head.bias is not None
    unlikely = OutputHead(np.vstack([head.weight, head.weight]), np.concatenate([head.bias, head.bias - 50]))
    small, large = (refine_by_divergence(ridge, h, X[:1000], Y[:1000], epochs=2, outputs=V) for h in (head, unlikely))
    np.testing.assert_allclose(large.divergences, small.divergences, rtol=1e-5)


def test_refusals(ridge: AffineMap, states: tuple[np.ndarray, np.ndarray, OutputHead]) -> None:
    X, Y, head = states
    for x, y in ((X[:10], Y[:9]), (X[:, :5], Y), (X, Y[:, :5])):
        with pytest.raises(InvalidInputError, match="do not fit a map"):
            refine_by_divergence(ridge, head, x, y)
    with pytest.raises(InvalidInputError, match="too few"):
        refine_by_divergence(ridge, head, X[:5], Y[:5])
    damaged = X[:100].copy()
    damaged[3, 3] = np.nan
    with pytest.raises(InvalidInputError, match="not finite"):
        refine_by_divergence(ridge, head, damaged, Y[:100])
