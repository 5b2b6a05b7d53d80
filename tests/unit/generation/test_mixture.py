from __future__ import annotations

import numpy as np
import pytest

from sealign.errors import InvalidInputError
from sealign.generation import fit_weight, mixed


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_the_fitted_weight_is_the_best_of_a_fine_grid(share: float) -> None:
    random = np.random.default_rng(1)
    theirs, mine = np.log(random.dirichlet(np.ones(5))), np.log(random.dirichlet(np.ones(5)))
    drawn = random.choice(5, size=4000, p=np.exp(mixed(theirs, mine, share)))
    silo, own = theirs[drawn], mine[drawn]
    weight = fit_weight(silo, own)
    grid = np.linspace(0.005, 0.995, 199)
    likelihoods = [mixed(silo, own, candidate).mean() for candidate in grid]
    assert abs(weight - grid[int(np.argmax(likelihoods))]) <= 0.01
    assert mixed(silo, own, weight).mean() >= max(likelihoods) - 1e-6


def test_a_mixture_is_a_distribution_between_both() -> None:
    silo, own = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]), np.log([[0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    found = np.exp(mixed(silo, own, 0.25))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found, 0.75 * np.exp(silo) + 0.25 * np.exp(own))


def test_a_side_that_is_better_everywhere_takes_nearly_all() -> None:
    better, worse = np.log(np.full(50, 0.5)), np.log(np.full(50, 0.1))
    assert fit_weight(better, worse) == pytest.approx(0.001)
    assert fit_weight(worse, better) == pytest.approx(0.999)
    assert fit_weight(np.full(3, -2000.0), np.full(3, -1.0)) == pytest.approx(0.999)


@pytest.mark.parametrize("sides", [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0])])
def test_refusals(sides: tuple[list[float], list[float]]) -> None:
    with pytest.raises(InvalidInputError, match="no weight fits"):
        fit_weight(*map(np.array, sides))
