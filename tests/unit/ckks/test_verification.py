"""Verified products: honest ones pass always, and the check rows cost what they should."""

from __future__ import annotations

import numpy as np
import pytest

from sealign.ckks import (
    Cipher,
    Evaluator,
    PackingPlan,
    SecretKey,
    StreamedProduct,
    VerifiedRows,
    ZeroPool,
    candidates,
    free_rows,
    product_shape,
)
from sealign.errors import InvalidInputError
from tests.unit.ckks.parties import Floats, head, unit_rows

CHECKS = 24


def planned(
    weight: Floats, bias: Floats, rows: int, precision: float = 1 / 256, *, streamed: bool = False
) -> PackingPlan:
    return candidates(product_shape(weight, bias, rows=rows, precision=precision), streamed=streamed)[0]


def noisy(plan: PackingPlan, rows: Floats, weight: Floats, bias: Floats, generator: np.random.Generator) -> Floats:
    """A product with all the errors that a plan permits, rounded: honest, without encryption."""
    exact = rows @ weight + bias + generator.normal(scale=plan.noise_std, size=(len(rows), weight.shape[1]))
    rounded: Floats = np.rint(exact / plan.grid) * plan.grid
    return rounded


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("rows", "dimension", "outputs"), [(1, 20, 2), (7, 60, 3), (100, 60, 5), (1000, 30, 1)])
def test_honest_products_pass_always(rows: int, dimension: int, outputs: int, known: bool) -> None:
    generator = np.random.default_rng(rows)
    weight, bias = head(generator, dimension, outputs)
    plan = planned(weight, bias, rows + CHECKS)
    key = SecretKey.generate(plan.parameters)
    X = unit_rows(generator, rows, dimension) * generator.uniform(0, 1, size=(rows, 1))
    X += 0.3 * X.mean(axis=0)  # as embeddings are: not centred
    X /= max(1.0, float(np.linalg.norm(X, axis=1).max()))
    for _ in range(100):
        verified = VerifiedRows.of(X, plan, key, bias=bias if known else None)
        Y = verified.checked(noisy(plan, verified.rows, weight, bias, generator))
        assert np.abs(Y - (X @ weight + bias)).max() <= plan.precision
    assert not key.exhausted


def test_through_real_ciphertexts() -> None:
    generator = np.random.default_rng(1)
    weight, bias = head(generator, 100, 4)
    plan = planned(weight, bias, 64)
    key = SecretKey.generate(plan.parameters)
    cipher, evaluator, zeros = Cipher(plan, key), Evaluator(plan, weight, bias), ZeroPool(key.public_key)
    for _ in range(5):
        X = unit_rows(generator, 64 - CHECKS, 100)
        verified = VerifiedRows.of(X, plan, key)
        Y = verified.checked(cipher.decrypt(evaluator.evaluate(cipher.encrypt(verified.rows), zeros), 64))
        assert np.abs(Y - (X @ weight + bias)).max() <= plan.precision


def test_through_a_streamed_product() -> None:
    """As in encrypted alignment: no bias, and rows that are dimensions."""
    generator = np.random.default_rng(2)
    weight = generator.normal(size=(400, 30)) / 20
    plan = planned(weight, np.zeros(30), 40 + CHECKS, 2.0**-10, streamed=True)
    key = SecretKey.generate(plan.parameters)
    cipher, product = Cipher(plan, key), StreamedProduct(plan, weight, ZeroPool(key.public_key))
    X = unit_rows(generator, 40, 400)
    verified = VerifiedRows.of(X, plan, key, bias=np.zeros(30))
    for block in cipher.encrypt_blocks(verified.rows):
        product.add(block)
    parts, done = [], 0
    for part in product.finish():
        rows = min(plan.block.rows, len(verified.rows) - done)
        parts.append(cipher.decrypt(part, rows))
        done += rows
    Y = verified.checked(np.concatenate(parts))
    assert np.abs(Y - X @ weight).max() <= plan.precision


def test_rows_stay_within_the_norm_and_at_secret_places() -> None:
    generator = np.random.default_rng(3)
    weight, bias = head(generator, 50, 3)
    plan = planned(weight, bias, 100)
    key = SecretKey.generate(plan.parameters)
    X = unit_rows(generator, 76, 50)
    first, second = VerifiedRows.of(X, plan, key), VerifiedRows.of(X, plan, key)
    assert np.linalg.norm(first.rows, axis=1).max() <= plan.row_norm * (1 + 1e-12)
    assert sorted(first.checks.places) == list(range(100))
    assert not np.array_equal(first.checks.places, second.checks.places)
    assert not np.array_equal(first.checks.signs, second.checks.signs)
    assert set(np.unique(first.checks.signs)) == {-1.0, 1.0}


def test_rows_of_zeros_are_ordinary() -> None:
    generator = np.random.default_rng(4)
    weight, bias = head(generator, 50, 3)
    plan = planned(weight, bias, 40)
    verified = VerifiedRows.of(np.zeros((10, 50)), plan, SecretKey.generate(plan.parameters))
    Y = verified.checked(noisy(plan, verified.rows, weight, bias, generator))
    assert np.abs(Y - bias).max() <= plan.precision


def test_room_in_a_block_costs_no_ciphertext() -> None:
    weight, bias = head(np.random.default_rng(5), 384, 4)
    plan = planned(weight, bias, 1024)
    rows = plan.block.rows - CHECKS
    assert free_rows(plan, rows) == CHECKS
    assert plan.cost_of(rows).requests == plan.cost_of(rows + CHECKS).requests
    assert free_rows(plan, plan.block.rows) == 0
    assert free_rows(plan, 1024) == 0


@pytest.mark.parametrize(("rows", "checks"), [(0, 24), (41, 24), (10, 1), (10, 0)])
def test_rows_that_do_not_fit_are_refused(rows: int, checks: int) -> None:
    weight, bias = head(np.random.default_rng(6), 50, 3)
    plan = planned(weight, bias, 64)
    with pytest.raises(InvalidInputError, match="check rows"):
        VerifiedRows.of(np.zeros((rows, 50)), plan, SecretKey.generate(plan.parameters), checks=checks)


def test_products_of_another_shape_are_refused() -> None:
    weight, bias = head(np.random.default_rng(7), 50, 3)
    plan = planned(weight, bias, 64)
    verified = VerifiedRows.of(np.zeros((10, 50)), plan, SecretKey.generate(plan.parameters))
    for shape in ((10, 3), (34, 4)):
        with pytest.raises(InvalidInputError, match="is expected"):
            verified.checked(np.zeros(shape))
