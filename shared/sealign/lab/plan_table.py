"""What the planner considered for a shape of product, as a table for people and as rows for programs."""

from __future__ import annotations

from math import sqrt
from typing import Any

from rich.table import Table

from sealign.ckks import DEFAULT_PRECISION, PackingPlan, ProductShape, SecurityTable, candidates
from sealign.ckks.parameters import MINIMUM_SECURITY

TYPICAL_CLASS_NORM = 5.0
"""L2 norm of the weights of one class, for a logistic regression on unit-norm embeddings."""

TYPICAL_RANGE = 32.0
"""Bound of the absolute logits of such a head."""


def typical_shape(
    dimension: int,
    classes: int,
    batch: int = 1,
    *,
    norm: float | None = None,
    range: float = TYPICAL_RANGE,  # noqa: A002 - the field's name in ProductShape
    precision: float = DEFAULT_PRECISION,
) -> ProductShape:
    """The shape of a product whose weights are not at hand.

    Args:
        dimension: inner dimension d.
        classes: number of outputs C.
        batch: rows in one request.
        norm: Frobenius norm of the weights; by default 5·sqrt(C).
        range: bound of the absolute outputs.
        precision: largest absolute error of an output.

    Raises:
        InvalidInputError: a number is out of bounds.
    """
    frobenius = TYPICAL_CLASS_NORM * sqrt(max(classes, 1)) if norm is None else norm
    return ProductShape(batch, dimension, classes, frobenius, range, precision=precision)


def plan_rows(
    shape: ProductShape,
    table: SecurityTable = SecurityTable.CLASSICAL,
    minimum_security: int = MINIMUM_SECURITY,
) -> list[dict[str, Any]]:
    """The best plan of each parameter set, cheapest and so chosen first, as JSON-able rows.

    Raises:
        InvalidInputError: no set reaches the precision within the range and security demanded.
    """
    plans = candidates(shape, table, minimum_security)
    return [_row(plan, table, chosen=plan is plans[0]) for plan in plans]


def _row(plan: PackingPlan, table: SecurityTable, *, chosen: bool) -> dict[str, Any]:
    cost, parameters = plan.cost, plan.parameters
    return {
        "chosen": chosen,
        "parameters": parameters.name,
        "poly_degree": parameters.poly_degree,
        "modulus_bits": parameters.modulus_bits,
        "security_bits": parameters.security_level(table),
        "block": [plan.block.rows, plan.block.inner, plan.block.outputs],
        "request_bytes": cost.request_bytes,
        "reply_bytes": cost.reply_bytes,
        "requests": cost.requests,
        "products": cost.products,
        "replies": cost.replies,
        "server_ms": cost.server_ms,
        "client_ms": cost.client_ms,
        "total_ms": cost.milliseconds,
        "bits_per_output": plan.bits_per_output,
    }


def plan_table(
    shape: ProductShape,
    table: SecurityTable = SecurityTable.CLASSICAL,
    minimum_security: int = MINIMUM_SECURITY,
) -> Table:
    """The rows of :func:`plan_rows` for a terminal, the chosen one marked.

    Raises:
        InvalidInputError: no set reaches the precision within the range and security demanded.
    """
    view = Table(
        title=f"B={shape.rows}, d={shape.dimension}, C={shape.outputs}, errors up to {shape.precision:.3g}",
        caption="✓ chosen; times are predictions for one core, the total with a link of 100 Mbit/s",
        box=None,
        pad_edge=False,
    )
    view.add_column("parameters", no_wrap=True)
    headings = (
        "N", "q\nbits", "secure\nbits", "block\nb,k,c", "up\nKB", "down\nKB", "prod-\nucts", "re-\nplies",
        "server\nms", "client\nms", "total\nms", "bits/\noutput",
    )  # fmt: skip
    for heading in headings:
        view.add_column(heading, justify="right", no_wrap=True)
    for row in plan_rows(shape, table, minimum_security):
        view.add_row(
            f"{'✓' if row['chosen'] else ' '} {row['parameters']}",
            *(str(row[key]) for key in ("poly_degree", "modulus_bits", "security_bits")),
            ",".join(map(str, row["block"])),
            *(short(row[key] / 1000) for key in ("request_bytes", "reply_bytes")),
            *(str(row[key]) for key in ("products", "replies")),
            *(short(row[key]) for key in ("server_ms", "client_ms", "total_ms", "bits_per_output")),
            style="bold" if row["chosen"] else None,
        )
    return view


def short(number: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}"
