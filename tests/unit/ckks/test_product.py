"""The encrypted product against numpy: right within the precision, with the error that the plan predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealign.ckks import PARAMETER_SETS, SecurityTable
from tests.unit.ckks.parties import Floats, Parties, head, unit_rows


def _error(parties: Parties, X: Floats) -> Floats:
    error = parties.encrypted(X) - parties.clear(X)
    assert np.abs(error).max() <= parties.plan.precision
    return error


@given(
    rows=st.integers(1, 40),
    dimension=st.integers(1, 300),
    outputs=st.integers(1, 30),
    precision=st.sampled_from([1 / 16, 1 / 256, 1 / 65536]),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=25)
def test_any_shape(rows: int, dimension: int, outputs: int, precision: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    parties = Parties.meet(*head(generator, dimension, outputs), rows=rows, precision=precision)
    _error(parties, unit_rows(generator, rows, dimension))


@pytest.mark.parametrize(
    ("rows", "dimension", "outputs"), [(1, 768, 4), (1, 768, 150), (64, 768, 10), (1, 4096, 2), (512, 384, 4)]
)
def test_shapes_in_use(rows: int, dimension: int, outputs: int) -> None:
    generator = np.random.default_rng(3)
    parties = Parties.meet(*head(generator, dimension, outputs), rows=rows)
    _error(parties, unit_rows(generator, rows, dimension))


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_every_parameter_set_has_the_predicted_error(name: str) -> None:
    """At the finest precision that the set reaches, where every part of the budget counts."""
    generator = np.random.default_rng(4)
    parties = Parties.meet(*head(generator, 48, 16), rows=64, parameters=name, precision=_finest(name))
    error = _error(parties, unit_rows(generator, 64, 48))
    predicted = parties.plan.error_budget(parties.shape.frobenius_norm).total
    assert error.std() == pytest.approx(predicted, rel=0.25)
    assert abs(error.mean()) < 5 * predicted / np.sqrt(error.size)


def _finest(name: str) -> float:
    """Finest power of two that a set reaches for the head above: two more bits of modulus give one more of it."""
    return float(2.0 ** (9 - PARAMETER_SETS[name].modulus_bits // 2))


@pytest.mark.parametrize("precision", [1 / 16, 1 / 256])
def test_default_plan_has_the_predicted_error(precision: float) -> None:
    generator = np.random.default_rng(5)
    parties = Parties.meet(*head(generator, 768, 10), rows=64, precision=precision)
    error = _error(parties, unit_rows(generator, 64, 768))
    assert error.std() == pytest.approx(parties.plan.error_budget(parties.shape.frobenius_norm).total, rel=0.25)


def test_post_quantum_plan_works() -> None:
    generator = np.random.default_rng(6)
    parties = Parties.meet(*head(generator, 768, 4), precision=2.0**-14, table=SecurityTable.POST_QUANTUM)
    _error(parties, unit_rows(generator, 1, 768))


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 70])
def test_fewer_rows_than_the_plan(rows: int) -> None:
    """A batch of any size up to the plan's, down to a single row block."""
    generator = np.random.default_rng(7)
    parties = Parties.meet(*head(generator, 200, 3), rows=70)
    _error(parties, unit_rows(generator, rows, 200))


def test_several_row_blocks() -> None:
    generator = np.random.default_rng(8)
    parties = Parties.meet(*head(generator, 16, 2), rows=5000, parameters="ckks-2048-36")
    assert parties.plan.counts[0] > 1
    _error(parties, unit_rows(generator, 3000, 16))


@pytest.mark.parametrize("zeroed", ["class", "block", "bias", "weights", "inputs", "everything"])
def test_zeros_are_ordinary_numbers(zeroed: str) -> None:
    generator = np.random.default_rng(9)
    weight, bias = head(generator, 768, 150)
    X = unit_rows(generator, 1, 768)
    if zeroed == "class":
        weight[:, 7], bias[7] = 0, 0
    elif zeroed == "block":
        weight[:256, :40] = 0
    if zeroed in ("bias", "everything"):
        bias[:] = 0
    if zeroed in ("weights", "everything"):
        weight[:] = 0
    if zeroed in ("inputs", "everything"):
        X[:] = 0
    _error(Parties.meet(weight, bias), X)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_rows_of_any_real_type(kind: Any) -> None:
    generator = np.random.default_rng(10)
    parties = Parties.meet(*head(generator, 60, 3), rows=60)
    X = np.eye(60).astype(kind)
    _error(parties, X)


def test_prepared_zeros_give_the_same_product() -> None:
    generator = np.random.default_rng(11)
    parties = Parties.meet(*head(generator, 60, 3))
    while not parties.zeros.is_full:
        parties.zeros.prepare()
    X = unit_rows(generator, 1, 60)
    for _ in range(12):  # more than the pool holds
        _error(parties, X)
    assert not parties.zeros.is_full
