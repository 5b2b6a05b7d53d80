import json
from io import StringIO
from math import sqrt

import pytest
from rich.console import Console

from sealign.ckks import SecurityTable, plan_product
from sealign.errors import InvalidInputError
from sealign.lab.plan_table import plan_rows, plan_table, typical_shape


def test_the_chosen_row_is_the_planners_choice() -> None:
    shape = typical_shape(768, 150)
    plan = plan_product(shape)

    rows = json.loads(json.dumps(plan_rows(shape)))

    assert [row["chosen"] for row in rows] == [True] + [False] * (len(rows) - 1)
    assert rows[0]["parameters"] == plan.parameters.name
    assert rows[0]["block"] == [plan.block.rows, plan.block.inner, plan.block.outputs]
    assert rows[0]["request_bytes"] == plan.cost.request_bytes
    assert rows[0]["total_ms"] == plan.cost.milliseconds
    weighed = [row["total_ms"] + row["server_ms"] for row in rows]
    assert weighed[0] == min(weighed)


def test_the_post_quantum_table_leaves_weaker_sets_out() -> None:
    shape = typical_shape(768, 4)
    classical = {row["parameters"] for row in plan_rows(shape)}
    strict = plan_rows(shape, SecurityTable.POST_QUANTUM)

    assert "ckks-2048-42" in classical
    assert "ckks-2048-42" not in {row["parameters"] for row in strict}
    assert all(row["security_bits"] >= 128 for row in strict)


def test_the_table_holds_a_line_for_each_candidate_and_fits_a_terminal() -> None:
    shape = typical_shape(4096, 150, 4096)
    console = Console(width=110, file=StringIO(), record=True)
    console.print(plan_table(shape))
    text = console.export_text()

    assert text.count("✓ ckks-") == 1
    for row in plan_rows(shape):
        assert row["parameters"] in text
        assert ",".join(map(str, row["block"])) in text
    assert "…" not in text


def test_the_norm_of_a_typical_head_grows_with_the_classes() -> None:
    assert typical_shape(768, 9).frobenius_norm == pytest.approx(5 * sqrt(9))
    assert typical_shape(768, 9, norm=2.5).frobenius_norm == 2.5


def test_numbers_out_of_bounds_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="1 to 2"):
        typical_shape(768, 0)
    with pytest.raises(InvalidInputError, match="precision"):
        plan_rows(typical_shape(768, 4, precision=1e-11))
