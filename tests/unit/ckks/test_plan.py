"""The planner: what it promises is what encryption and evaluation then cost and deliver."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealign.ckks import Block, PackingPlan, ProductShape, SecurityTable, candidates, plan_product
from sealign.errors import InvalidInputError
from tests.unit.ckks.parties import Parties, head, unit_rows

SHAPES = st.builds(
    ProductShape,
    rows=st.integers(1, 300),
    dimension=st.integers(1, 5000),
    outputs=st.integers(1, 2000),
    frobenius_norm=st.floats(0.01, 300),
    range=st.floats(0.01, 300),
    row_norm=st.sampled_from([1.0, 0.5, 20.0]),
    precision=st.sampled_from([1.0, 1 / 16, 1 / 256]),
)


@given(SHAPES, st.sampled_from(SecurityTable))
@settings(deadline=None, max_examples=25)
def test_every_candidate_keeps_its_promises(shape: ProductShape, table: SecurityTable) -> None:
    try:
        plans = candidates(shape, table)
    except InvalidInputError:
        assert shape.range / shape.precision > 1000  # only a wide range at a fine precision may be refused
        return
    assert len({plan.parameters.name for plan in plans}) == len(plans)
    assert plans[0] == plan_product(shape, table)
    assert [plan.cost.weighed_ms for plan in plans] == sorted(plan.cost.weighed_ms for plan in plans)
    for plan in plans:
        _check(plan, shape, table)


def _check(plan: PackingPlan, shape: ProductShape, table: SecurityTable) -> None:
    assert plan.parameters.security_level(table) >= 128
    assert (plan.rows, plan.dimension, plan.outputs) == (shape.rows, shape.dimension, shape.outputs)
    assert plan.block.size <= plan.parameters.poly_degree
    row_blocks, inner_blocks, output_blocks = plan.counts
    assert (row_blocks - 1) * plan.block.rows < shape.rows <= row_blocks * plan.block.rows
    assert (inner_blocks - 1) * plan.block.inner < shape.dimension <= inner_blocks * plan.block.inner
    assert (output_blocks - 1) * plan.block.outputs < shape.outputs <= output_blocks * plan.block.outputs
    assert plan.range >= shape.range
    assert 7.999 <= plan.parameters.modulus / (plan.range * plan.output_scale) < 8  # what a promised range relies on
    assert plan.input_scale_bits + np.log2(plan.row_norm) <= 50
    assert plan.dropped_bits >= 1
    assert shape.precision / 4 < plan.grid <= shape.precision / 2
    assert np.log2(plan.grid) % 1 == 0
    # Half a step of the grid and seven deviations of what comes before it are within the precision.
    permitted = (shape.precision - plan.grid / 2) / 7
    budget = plan.error_budget(shape.block_norm(plan.block.outputs))
    assert budget.noise <= permitted * (1 + 1e-9)
    assert plan.flood_std == pytest.approx(np.sqrt(0.47) * permitted)
    # The budget cannot be met with fewer bits in the reply, or, for two more bits of it at most, with coarser weights.
    shorter = replace(plan, reply_bits=max(1, plan.reply_bits - 1))
    assert plan.reply_bits == 1 or shorter.error_budget(shape.block_norm(plan.block.outputs)).noise > permitted


def test_weights_are_as_coarse_as_the_precision_permits() -> None:
    """Their rounding takes the largest part of the error after the flood; one bit coarser would break the promise."""
    for precision in (1 / 16, 1 / 256):
        plan = plan_product(ProductShape(1, 768, 4, frobenius_norm=16.0, range=11.0, precision=precision))
        budget = plan.error_budget(16.0)
        assert 0.4 <= (budget.weights / plan.noise_std) ** 2 < 0.53
        assert 2.0**-plan.weight_scale_bits == precision / 4
        bits, widest = plan.weight_scale_bits - 1, plan.parameters.modulus_bits - 1
        coarser = replace(plan, weight_scale_bits=bits, input_scale_bits=plan.input_scale_bits + 1, reply_bits=widest)
        assert coarser.error_budget(16.0).noise > plan.noise_std


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rows": 0}, "rows"), ({"rows": (1 << 24) + 1}, "rows"), ({"dimension": 0}, "dimension"),
        ({"outputs": -1}, "outputs"), ({"block": Block(0, 1, 1)}, r"block\.rows"), ({"block": Block(1, 0, 1)}, "inner"),
        ({"block": Block(1, 1, -2)}, r"block\.outputs"), ({"block": Block(2, 1024, 2)}, "block"),
        ({"input_scale_bits": 0}, "input_scale_bits"), ({"input_scale_bits": 65}, "input_scale_bits"),
        ({"input_scale_bits": 40, "weight_scale_bits": 1}, "input_scale_bits"),
        ({"weight_scale_bits": 0}, "weight_scale_bits"), ({"weight_scale_bits": 65}, "weight_scale_bits"),
        ({"reply_bits": 0}, "reply_bits"), ({"reply_bits": 40}, "reply_bits"),
        ({"range": float("nan")}, "range"), ({"range": float("inf")}, "range"), ({"range": 0.0}, "range"),
        ({"range": 2.0**20}, "range"), ({"precision": -1.0}, "precision"), ({"precision": 1e300}, "precision"),
        ({"precision": 0.0}, "precision"), ({"row_norm": float("nan")}, "row_norm"), ({"row_norm": 1e-30}, "row_norm"),
        ({"row_norm": 2.0**30}, "input_scale_bits"),
        ({"rows": 1 << 24, "block": Block(1, 1, 1)}, "block"),  # gigabytes
        ({"dimension": 1 << 24, "block": Block(1, 1, 1)}, "block"),
        ({"outputs": 1 << 24, "block": Block(1, 768, 1)}, "block"),
    ],
    ids=str,
)  # fmt: skip
def test_a_plan_names_the_field_that_is_wrong(change: dict[str, float], field: str) -> None:
    plan = plan_product(ProductShape(1, 768, 4, frobenius_norm=16.0, range=11.0))
    with pytest.raises(InvalidInputError, match=f"packing plan: [a-z.]*{field} is "):
        replace(plan, **change)  # type: ignore[arg-type]


@given(SHAPES, st.sampled_from([2.0, 16.0]))
@settings(deadline=None, max_examples=15)
def test_finer_precision_never_takes_fewer_reply_bits(shape: ProductShape, factor: float) -> None:
    try:
        fine = {plan.parameters.name: plan for plan in candidates(replace(shape, precision=shape.precision / factor))}
    except InvalidInputError:
        return
    coarse = {plan.parameters.name: plan for plan in candidates(shape)}
    assert fine.keys() <= coarse.keys()
    assert all(fine[name].reply_bits >= coarse[name].reply_bits for name in fine)


def test_ids_name_the_content_in_every_process() -> None:
    script = (
        "from sealign.ckks import ProductShape, plan_product\n"
        "for s in ((1, 768, 4), (1, 768, 150), (64, 768, 10)):\n"
        "    print(plan_product(ProductShape(*s, frobenius_norm=16.0, range=11.0)).id)\n"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    shapes = ((1, 768, 4), (1, 768, 150), (64, 768, 10))
    here = [plan_product(ProductShape(*shape, frobenius_norm=16.0, range=11.0)).id for shape in shapes]
    assert [run.split() for run in runs] == [here]
    assert len(set(here)) == len(here)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 2}, {"dimension": 769}, {"outputs": 5}, {"input_scale_bits": 3}, {"weight_scale_bits": 3},
        {"reply_bits": 5}, {"range": 8.0}, {"precision": 0.1}, {"row_norm": 2.0},
    ],
    ids=str,
)  # fmt: skip
def test_id_covers_every_field(change: dict[str, float]) -> None:
    plan = plan_product(ProductShape(1, 768, 4, frobenius_norm=16.0, range=11.0))
    assert replace(plan, **change).id != plan.id  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "dimension", "outputs"), [(1, 768, 4), (1, 768, 150), (64, 768, 10), (5, 60, 3), (3, 3000, 2)]
)
def test_predicted_cost_is_the_actual_cost(rows: int, dimension: int, outputs: int) -> None:
    generator = np.random.default_rng(1)
    parties = Parties.meet(*head(generator, dimension, outputs), rows=rows)
    query = parties.cipher.encrypt(unit_rows(generator, rows, dimension))
    reply = parties.evaluator.evaluate(query, parties.zeros)
    cost = parties.plan.cost
    assert (query.byte_count, len(query.ciphertexts)) == (cost.request_bytes, cost.requests)
    assert (reply.byte_count, len(reply.ciphertexts)) == (cost.reply_bytes, cost.replies)
    encoded = sum(block is not None for blocks in parties.evaluator._weights for block in blocks)
    assert cost.products == encoded * parties.plan.counts[0]
    assert cost.weight_bytes == encoded * parties.plan.parameters.poly_degree * 8


def test_post_quantum_plan_changes_set_when_it_must() -> None:
    shape = ProductShape(1, 768, 150, frobenius_norm=65.0, range=11.0, precision=1 / 256)
    assert plan_product(shape).parameters.name == "ckks-2048-40"
    assert plan_product(shape, SecurityTable.POST_QUANTUM).parameters.name == "ckks-4096-40"


@pytest.mark.parametrize("precision", [1e-12, 2.0**-60])
def test_impossible_precision_is_refused(precision: float) -> None:
    with pytest.raises(InvalidInputError, match="coarser precision"):
        plan_product(ProductShape(1, 768, 4, frobenius_norm=16.0, range=11.0, precision=precision))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0}, {"dimension": 0}, {"outputs": -1}, {"outputs": 1 << 25}, {"frobenius_norm": float("nan")},
        {"frobenius_norm": 0.0}, {"range": float("inf")}, {"row_norm": -1.0}, {"precision": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_meaningless_shapes_are_refused(change: dict[str, float]) -> None:
    shape = ProductShape(1, 768, 4, frobenius_norm=16.0, range=11.0)
    with pytest.raises(InvalidInputError):
        replace(shape, **change)  # type: ignore[arg-type]


def test_too_little_memory_for_the_weights_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        candidates(ProductShape(1, 4096, 150_000, frobenius_norm=16.0, range=11.0), max_bytes=1 << 20)


def test_errors_meet_one_block_of_columns_only() -> None:
    """With the norm of columns known, a vocabulary needs no wider modulus than one block of it."""
    vocabulary = ProductShape(1, 256, 100_000, 2.0 * 100_000**0.5, 128.0, row_norm=50.0, precision=1 / 8)
    known = replace(vocabulary, column_norm=2.0)
    assert known.block_norm(3) == 2.0 * 4**0.5
    assert known.block_norm(1 << 20) == vocabulary.frobenius_norm
    widths = [min(plan.parameters.modulus_bits for plan in candidates(shape)) for shape in (vocabulary, known)]
    assert widths[1] < widths[0]
