"""Map families on made-up embeddings of which the right answer is known, and the choice among them."""

from __future__ import annotations

import numpy as np
import pytest

from sealign.alignment import FAMILIES, AffineMap, Moments, RidgeStatistics, fit_map, fit_ridge
from sealign.alignment.families import (
    cca_family,
    procrustes_family,
    reduced_rank_family,
    refitted,
    retrieval,
    ridge_family,
    score_families,
)
from sealign.errors import InvalidInputError

NAMES = {"source_fingerprint": "s", "target_fingerprint": "t", "public_set": "p"}


def moments(x: np.ndarray, y: np.ndarray) -> Moments:
    return Moments.of(x, y, np.ones(len(x)))


def statistics(x: np.ndarray, y: np.ndarray) -> RidgeStatistics:
    found = RidgeStatistics(x.shape[1], y.shape[1])
    found.update(x, y)
    return found


def skewed(random: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    """Embeddings with a few strong directions, as encoders give."""
    scales = np.logspace(0, -1, dimension)
    return random.standard_normal((rows, dimension)) * scales + random.standard_normal(dimension)


@pytest.mark.parametrize(("source", "target"), [(6, 6), (6, 9), (9, 6)])
def test_procrustes_finds_rotation_and_scale(source: int, target: int) -> None:
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.standard_normal((max(source, target),) * 2))[0][:source, :target]
    x = random.standard_normal((4000, source))
    (candidate,) = procrustes_family(moments(x, 3.0 * x @ rotation + 1.0))
    assert np.abs(candidate.weight - 3.0 * rotation).max() < 0.1
    if source <= target:
        assert candidate.weight @ candidate.weight.T == pytest.approx(9.0 * np.eye(source), abs=1e-9)


def test_reduced_rank_has_the_rank_and_is_ridge_at_full_rank() -> None:
    random = np.random.default_rng(1)
    x = skewed(random, 500, 80)
    found = moments(x, x @ random.standard_normal((80, 70)) + random.standard_normal((500, 70)))
    ridge = {candidate.penalty: candidate.weight for candidate in ridge_family(found)}
    ranks = []
    for candidate in reduced_rank_family(found):
        ranks.append(np.linalg.matrix_rank(candidate.weight))
        assert np.linalg.norm(candidate.weight) <= np.linalg.norm(ridge[candidate.penalty]) * (1 + 1e-9)
        if ranks[-1] == 70:
            assert candidate.weight == pytest.approx(ridge[candidate.penalty], abs=1e-9)
    assert sorted(set(ranks)) == [32, 64, 70]


def test_reduced_rank_beats_ridge_where_the_truth_has_low_rank() -> None:
    random = np.random.default_rng(2)
    truth = random.standard_normal((60, 32)) @ random.standard_normal((32, 100)) / 5
    x = random.standard_normal((150, 60))
    found = moments(x, x @ truth + 3 * random.standard_normal((150, 100)))
    error = {(c.penalty, np.linalg.matrix_rank(c.weight)): np.linalg.norm(c.weight - truth)
             for family in (ridge_family, reduced_rank_family) for c in family(found)}  # fmt: skip
    assert error[0.1, 32] < error[0.1, 60]


def test_cca_gives_predictions_the_spread_of_the_target() -> None:
    random = np.random.default_rng(3)
    x = skewed(random, 3000, 12)
    y = x @ random.standard_normal((12, 10)) + random.standard_normal((3000, 10))
    found = moments(x, y)
    spread = np.trace(found.yy)
    ridge = next(c for c in ridge_family(found) if c.penalty == 0.1)
    flat, root = (c for c in cca_family(found) if c.penalty == 0.1)

    def predicted(weight: np.ndarray) -> float:
        return float(np.trace(weight.T @ found.xx @ weight) / spread)

    assert predicted(ridge.weight) < predicted(root.weight) < predicted(flat.weight)
    assert predicted(flat.weight) == pytest.approx(1.0, abs=0.1)


def test_retrieval() -> None:
    random = np.random.default_rng(4)
    y = random.standard_normal((200, 20))
    assert retrieval(y * 3.0, y) == 1.0
    assert retrieval(np.zeros_like(y), y) == pytest.approx(1 / 200)
    assert retrieval(random.standard_normal(y.shape), y) < 0.1
    assert 0.1 < retrieval(y + 1.5 * random.standard_normal(y.shape), y) < 1.0


def rotated(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Target rows are rotated source rows and much noise: few texts determine a rotation better than a regression."""
    x = random.standard_normal((120, 60))
    return x, x @ np.linalg.qr(random.standard_normal((60, 60)))[0] + random.standard_normal((120, 60))


def test_the_best_family_is_chosen_on_held_out_texts() -> None:
    found = statistics(*rotated(np.random.default_rng(5)))
    scores = {scored.candidate.family: scored.score for scored in reversed(score_families(found))}
    learned = fit_map(found, **NAMES)
    (procrustes,) = procrustes_family(found.moments(*range(5)))
    assert scores["procrustes"] > scores["ridge"]
    assert learned.weight == pytest.approx(procrustes.weight)
    only = fit_map(found, ["ridge"], **NAMES)
    assert only.quality.penalty in {c.penalty for c in ridge_family(found.moments(0))}
    assert not np.allclose(only.weight, learned.weight)


def test_refitted_is_the_same_member_of_the_family() -> None:
    found = statistics(*rotated(np.random.default_rng(6)))
    for scored in score_families(found):
        again = refitted(found, scored)
        assert (again.family, again.penalty) == (scored.candidate.family, scored.candidate.penalty)
        assert np.linalg.matrix_rank(again.weight) == np.linalg.matrix_rank(scored.candidate.weight)
        assert 0 < np.linalg.norm(again.weight - scored.candidate.weight) < np.linalg.norm(again.weight)


def test_every_family_gives_a_whole_map() -> None:
    random = np.random.default_rng(7)
    x = skewed(random, 300, 20)
    y = x @ random.standard_normal((20, 30)) + random.standard_normal((300, 30))
    found, unseen = statistics(x, y), statistics(x, y).held_out_sample()
    plain = fit_ridge(found, source_fingerprint="s", target_fingerprint="t", public_set="p")
    for family in FAMILIES:
        learned: AffineMap = fit_map(found, [family], **NAMES)
        assert learned.channel is not None
        assert learned.apply(x).mean(axis=0) == pytest.approx(y.mean(axis=0))
        assert learned.channel.mean == pytest.approx(y.mean(axis=0), abs=1e-5)
        assert learned.quality.linear_cka == plain.quality.linear_cka
        residual = np.sum((learned.apply(unseen[0]) - unseen[1]) ** 2)
        baseline = np.sum((unseen[1] - y.mean(axis=0)) ** 2)
        assert learned.quality.explained_variance == pytest.approx(1 - residual / baseline, abs=0.15)


def test_bad_input() -> None:
    found = statistics(*rotated(np.random.default_rng(8)))
    for families in (["rigde"], []):
        with pytest.raises(InvalidInputError, match="choose among ridge, procrustes, reduced-rank, cca"):
            fit_map(found, families, **NAMES)
    with pytest.raises(InvalidInputError, match="too few for 5 folds"):
        fit_map(statistics(np.eye(4), np.eye(4)), **NAMES)
    with pytest.raises(InvalidInputError, match="all the same"):
        fit_map(statistics(np.ones((20, 4)), np.eye(20)), **NAMES)
