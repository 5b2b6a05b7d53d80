from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from sealign.alignment import DEFAULT_PENALTIES, AffineMap, RidgeStatistics, fit_ridge
from sealign.errors import InvalidInputError

Matrix = NDArray[np.float64]


def fit(x: Matrix, y: Matrix, penalties: Sequence[float] = DEFAULT_PENALTIES, folds: int = 5) -> AffineMap:
    statistics = RidgeStatistics(x.shape[1], y.shape[1], folds)
    statistics.update(x, y)
    return fit_ridge(statistics, penalties, source_fingerprint="s", target_fingerprint="t", public_set="p")


def planted(rows: int, source: int, target: int, noise: float = 0.1) -> tuple[Matrix, Matrix]:
    random = np.random.default_rng(3)
    x = random.normal(1.0, 1.0, (rows, source)) * np.geomspace(1, 0.05, source)
    y = x @ random.normal(size=(source, target)) + 2.0 + noise * random.normal(size=(rows, target))
    return x, y


def alpha(x: Matrix, penalty: float) -> float:
    """The documented λ."""
    return float(penalty * np.sum((x - x.mean(0)) ** 2) / x.shape[1])


@pytest.mark.parametrize("rows", [12, 40, 500])
@pytest.mark.parametrize("penalty", [1e-4, 1e-1, 10.0])
def test_fit_equals_scikit_learn(rows: int, penalty: float) -> None:
    x, y = planted(rows, 20, 7)
    oracle = Ridge(alpha=alpha(x, penalty)).fit(x, y)
    result = fit(x, y, [penalty])
    np.testing.assert_allclose(result.weight, oracle.coef_.T, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(result.apply(x), oracle.predict(x), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("rows", "noise"), [(18, 0.3), (60, 1.0), (400, 0.1)])
def test_cross_validation_equals_an_explicit_loop(rows: int, noise: float) -> None:
    x, y = planted(rows, 20, 7, noise)
    penalties = [1e-3, 1e-2, 1e-1, 1.0, 10.0]
    unit = alpha(x, 1.0) / rows
    errors = np.zeros(len(penalties))
    total = 0.0
    for fold in range(4):
        held = np.arange(rows) % 4 == fold
        for k, penalty in enumerate(penalties):
            model = Ridge(alpha=penalty * unit * np.sum(~held)).fit(x[~held], y[~held])
            errors[k] += ((model.predict(x[held]) - y[held]) ** 2).sum()
        total += ((y[held] - y[~held].mean(0)) ** 2).sum()
    quality = fit(x, y, penalties, folds=4).quality
    assert quality.penalty == penalties[int(errors.argmin())]
    assert quality.explained_variance == pytest.approx(1 - errors.min() / total, rel=1e-6)
    assert quality.rows == rows

    held = np.arange(rows) % 4 == 0
    model = Ridge(alpha=quality.penalty * unit * np.sum(~held)).fit(x[~held], y[~held])
    predicted, actual = model.predict(x[held]), y[held]
    cosines = (predicted * actual).sum(1) / (np.linalg.norm(predicted, axis=1) * np.linalg.norm(actual, axis=1))
    assert quality.mean_cosine == pytest.approx(cosines.mean(), rel=1e-6)


def test_recovers_a_planted_map() -> None:
    random = np.random.default_rng(5)
    x = random.normal(size=(3000, 24))
    weight, intercept = random.normal(size=(24, 16)), random.normal(size=16)
    result = fit(x, x @ weight + intercept)
    np.testing.assert_allclose(result.weight, weight, atol=1e-4)
    np.testing.assert_allclose(result.intercept, intercept, atol=1e-4)
    assert result.quality.explained_variance > 1 - 1e-9
    assert result.quality.mean_cosine == pytest.approx(1, abs=1e-9)


def test_unrelated_embeddings_explain_nothing() -> None:
    random = np.random.default_rng(6)
    quality = fit(random.normal(size=(400, 30)), random.normal(size=(400, 20))).quality
    assert abs(quality.explained_variance) < 0.02
    assert quality.linear_cka is not None
    assert quality.linear_cka < 0.2


@pytest.mark.parametrize("rows", [10, 13, 200])
def test_rank_deficient_and_wide_embeddings(rows: int) -> None:
    random = np.random.default_rng(7)
    low = random.normal(size=(rows, 3))
    x = np.hstack([low @ random.normal(size=(3, 60)), np.full((rows, 2), 0.25)])
    y = low @ random.normal(size=(3, 40))
    result = fit(x, y)
    assert np.isfinite(result.weight).all()
    measured = {name: value for name, value in vars(result.quality).items() if name not in ("family", "divergence")}
    assert np.isfinite(list(measured.values())).all()
    assert result.quality.divergence is None
    assert result.quality.family == "ridge"
    assert result.quality.explained_variance > 0.9
    # Directions in which the public texts do not vary carry no weight.
    np.testing.assert_allclose(result.weight[-2:], 0.0, atol=1e-8)


def test_penalties_mean_the_same_at_every_scale() -> None:
    x, y = planted(300, 20, 7, 1.0)
    small, large = fit(x, y), fit(1000 * x, y)
    assert small.quality.penalty == large.quality.penalty
    np.testing.assert_allclose(small.weight, 1000 * large.weight, rtol=1e-6, atol=1e-9)


def test_cka_is_invariant_to_rotation_and_scale_only() -> None:
    x, y = planted(200, 12, 9, 1.0)
    rotation = np.linalg.qr(np.random.default_rng(8).normal(size=(12, 12)))[0]
    original = fit(x, y).quality.linear_cka
    assert fit(7.0 * x @ rotation + 3.0, 0.01 * y).quality.linear_cka == pytest.approx(original)
    assert fit(x, x).quality.linear_cka == pytest.approx(1.0)
    stretched = fit(x * np.linspace(0.1, 9, 12), x).quality.linear_cka
    assert stretched is not None
    assert stretched < 0.9


def test_cka_equals_its_kernel_form() -> None:
    x, y = planted(50, 12, 9, 2.0)
    centre = np.eye(50) - 1 / 50
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = (k * m).sum() / (np.linalg.norm(k) * np.linalg.norm(m))
    assert fit(x, y).quality.linear_cka == pytest.approx(expected)


def test_extreme_but_representable_scales() -> None:
    x, y = planted(100, 8, 5)
    for scale in (1e-30, 1e30):
        quality = fit(scale * x, scale * y).quality
        assert quality.explained_variance > 0.9
        assert quality.linear_cka == pytest.approx(fit(x, y).quality.linear_cka)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((9, 3)), np.ones((9, 2)), "9 rows are too few for 5 folds"),
        (np.full((20, 3), 0.1), np.eye(20), "source embeddings are all the same"),
        (np.eye(20), np.full((20, 3), 0.1), "target embeddings are all the same"),
    ],
)
def test_unusable_statistics(x: Matrix, y: Matrix, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        fit(x, y)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_numbers_too_large_to_square() -> None:
    with pytest.raises(InvalidInputError, match="too large"):
        fit(1e200 * np.eye(20), np.eye(20))


@pytest.mark.parametrize("penalties", [[], [0.0], [-1.0], [float("nan")], [float("inf")]])
def test_bad_penalties(penalties: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="penalties"):
        fit(*planted(20, 3, 2), penalties)


def test_one_eigendecomposition_a_fold_serves_every_penalty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    decompose = np.linalg.eigh

    def counted(matrix: Matrix) -> tuple[Matrix, Matrix]:
        calls.append(matrix.shape)
        return decompose(matrix)

    monkeypatch.setattr(np.linalg, "eigh", counted)
    fit(*planted(60, 20, 7), list(np.geomspace(1e-6, 1e2, 50)), folds=4)
    assert calls == [(20, 20)] * (4 + 1) + [(7, 7)] * (4 + 4)  # the channel's folds, and its noise twice and spread
