"""Ridge from a cross-covariance: the same maps as from the rows, a penalty as good as cross-validation's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sealign.alignment import (
    DEFAULT_PENALTIES,
    AffineMap,
    RidgeStatistics,
    ScaledRows,
    fit_cross_covariance,
    fit_ridge,
    require_enough_texts,
)
from sealign.alignment.cross_covariance import MASKED_TOLERANCE
from sealign.errors import InvalidInputError
from sealign.lab.evaluation.context import NAMES

Floats = NDArray[np.float64]


def views(rows: int, source: int, target: int, noise: float, seed: int = 0) -> tuple[Floats, Floats]:
    """Two noisy views of one meaning, with means far from zero."""
    generator = np.random.default_rng(seed)
    meaning = generator.normal(size=(rows, 8))
    X = meaning @ generator.normal(size=(8, source)) + noise * generator.normal(size=(rows, source)) + 3.0
    Y = meaning @ generator.normal(size=(8, target)) + noise * generator.normal(size=(rows, target)) - 2.0
    return X, Y


def fit(X: Floats, Y: Floats, error: float = 0.0, penalties: tuple[float, ...] = DEFAULT_PENALTIES) -> AffineMap:
    centred = Y - Y.mean(axis=0)
    source = ScaledRows.of(X)
    product = source.rows @ centred + error * np.random.default_rng(1).normal(size=(X.shape[1], Y.shape[1]))
    return fit_cross_covariance(source, product, float(np.sum(centred**2)), error, penalties, **NAMES)


def from_rows(X: Floats, Y: Floats, penalty: float) -> AffineMap:
    statistics = RidgeStatistics(X.shape[1], Y.shape[1])
    statistics.update(X, Y)
    return fit_ridge(statistics, [penalty], **NAMES)


@pytest.mark.parametrize("penalty", [1e-5, 1e-2, 1.0, 100.0])
def test_the_map_is_that_of_the_rows_up_to_the_silos_mean(penalty: float) -> None:
    X, Y = views(300, 20, 15, 0.5)
    own, clear = fit(X, Y, penalties=(penalty,)), from_rows(X, Y, penalty)
    np.testing.assert_allclose(own.weight, clear.weight, atol=1e-9)
    np.testing.assert_allclose(own.apply(X), clear.apply(X) - Y.mean(axis=0), atol=1e-8)


def test_generalised_cross_validation_by_its_definition() -> None:
    """With the hat matrix written out: n·‖(I − H)Y‖² / tr(I − H)²."""
    X, Y = views(120, 10, 6, 2.0)
    centred_x, centred_y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    unit = np.trace(centred_x.T @ centred_x) / 10
    scores = {}
    for penalty in DEFAULT_PENALTIES:
        hat = centred_x @ np.linalg.solve(centred_x.T @ centred_x + penalty * unit * np.eye(10), centred_x.T)
        left = np.eye(120) - hat - 1 / 120
        scores[penalty] = 120 * np.sum((left @ centred_y) ** 2) / np.trace(left) ** 2
    quality = fit(X, Y).quality
    assert quality.penalty == min(scores, key=scores.__getitem__)
    baseline = 120 * np.sum(centred_y**2) / 119**2
    assert quality.explained_variance == pytest.approx(1 - scores[quality.penalty] / baseline)


@pytest.mark.parametrize("noise", [0.3, 3.0, 30.0])
def test_the_penalty_predicts_unseen_rows_as_well_as_the_best(noise: float) -> None:
    X, Y = views(2400, 40, 30, noise)
    train, unseen = slice(0, 400), slice(400, None)
    mean = Y[train].mean(axis=0)

    def error(learned: AffineMap) -> float:
        return float(np.mean((learned.apply(X[unseen]) + mean - Y[unseen]) ** 2))

    chosen = fit(X[train], Y[train])
    best = min(error(fit(X[train], Y[train], penalties=(penalty,))) for penalty in DEFAULT_PENALTIES)
    assert error(chosen) <= 1.02 * best
    explained = 1 - error(chosen) / float(np.mean((Y[unseen] - mean) ** 2))
    assert chosen.quality.explained_variance == pytest.approx(explained, abs=0.05)


@pytest.mark.parametrize("error", [1e-6, 1e-4, 1e-2])
def test_errors_of_the_product_hardly_move_the_map(error: float) -> None:
    """Penalties too weak for the precision are left out."""
    X, Y = views(300, 20, 15, 0.05)
    learned = fit(X, Y, error)
    exact = fit(X, Y, penalties=(learned.quality.penalty,))
    assert np.linalg.norm(learned.weight - exact.weight) <= 1.2e-3 * np.linalg.norm(exact.weight)


def test_a_masked_product_tells_the_same_covariances() -> None:
    """Within 3 % at the size of real encoders, and of the noise that then hides a key: 1/460 of the entries."""
    generator = np.random.default_rng(0)
    meaning = generator.normal(size=(4000, 384)) * np.exp(-np.arange(384) / 80)
    X, Y = (
        meaning @ generator.normal(size=(384, width)) + generator.normal(size=(4000, width)) for width in (384, 512)
    )
    centred = Y - Y.mean(axis=0)
    source = ScaledRows.of(X)
    product, norm = source.rows @ centred, float(np.sum(centred**2))
    noise = float(np.sqrt(np.mean(product**2))) / 460
    masked = product + noise * generator.normal(size=product.shape)
    exact = fit(X, Y)
    told = fit_cross_covariance(source, masked, norm, noise, tolerance=MASKED_TOLERANCE, **NAMES)
    assert told.covariances is not None
    assert exact.covariances is not None
    for part in ("cross", "mapped"):
        right = getattr(exact.covariances, part)
        assert np.linalg.norm(getattr(told.covariances, part) - right) <= 0.03 * np.linalg.norm(right)


def test_dimensions_that_do_not_vary_or_repeat_are_ordinary() -> None:
    X, Y = views(300, 20, 15, 0.5)
    X[:, 3], X[:, 4] = 7.0, X[:, 5]
    assert ScaledRows.of(X).scales[3] == 0
    own = fit(X, Y, 1e-6)
    clear = from_rows(X, Y, own.quality.penalty)
    assert np.linalg.norm(own.weight - clear.weight) <= 1e-3 * np.linalg.norm(clear.weight)


def test_fewer_rows_than_dimensions() -> None:
    X, Y = views(15, 20, 5, 0.5)
    assert np.isfinite(fit(X, Y).weight).all()


def test_numbers_that_contradict_one_another() -> None:
    X, Y = views(300, 20, 15, 0.5)
    source, centred = ScaledRows.of(X), Y - Y.mean(axis=0)
    product, norm = source.rows @ centred, float(np.sum(centred**2))
    for bad, squared_norm, match in [
        (product[:-1], norm, "20 finite rows"),
        (np.where(product > 0, np.nan, product), norm, "20 finite rows"),
        (product, 0.5 * norm, "contradict"),
        (10 * product, norm, "contradict"),
        (product, float("nan"), "contradict"),
    ]:
        with pytest.raises(InvalidInputError, match=match):
            fit_cross_covariance(source, bad, squared_norm, 0.0, DEFAULT_PENALTIES, **NAMES)
    with pytest.raises(InvalidInputError, match="nothing in common"):
        fit_cross_covariance(source, np.zeros_like(product), norm, 1e-3, DEFAULT_PENALTIES, **NAMES)


def test_embeddings_that_cannot_be_used() -> None:
    X, _ = views(30, 5, 5, 0.5)
    with pytest.raises(InvalidInputError, match="all the same"):
        ScaledRows.of(np.tile(X[:1], (30, 1)))
    X[4, 2] = np.nan
    with pytest.raises(InvalidInputError, match="row 4 is not finite"):
        ScaledRows.of(X)


def test_too_few_texts() -> None:
    require_enough_texts(2048, 384, 512)
    with pytest.raises(InvalidInputError, match="at least 2048 public texts, this set has 2047"):
        require_enough_texts(2047, 384, 512)
    with pytest.raises(InvalidInputError, match="at least 3072"):
        require_enough_texts(2048, 768, 512)
