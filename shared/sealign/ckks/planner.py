"""The planner: from the shape of a product and the precision wanted to parameters, scales and packing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor, inf, log2, sqrt

from sealign.ckks.packing import Block
from sealign.ckks.parameters import MINIMUM_SECURITY, PARAMETER_SETS, ParameterSet
from sealign.ckks.plan import (
    DEFAULT_PRECISION,
    EXACT_BITS,
    LARGEST_CIPHERTEXTS,
    LARGEST_COUNT,
    LARGEST_SCALE_BITS,
    NORM_TOLERANCE,
    PackingPlan,
    largest_outputs,
)
from sealign.errors import InvalidInputError
from sealign.security import SecurityTable

_ROOM = 7.999
"""q/Δ over the range, at least: all moduli lie just below a power of two, so scales that are ones leave 8, nearly."""

_SEEN_MARGIN = 2.0
"""The range promised over the largest output seen."""

_COARSENESS_BITS = 2
"""Bits of each coefficient of a reply that coarser weights may cost."""


@dataclass(frozen=True)
class ProductShape:
    """What is to be multiplied, and how exactly.

    Attributes:
        rows: largest number of rows B in one request.
        dimension: inner dimension d.
        outputs: number of outputs C.
        frobenius_norm: an upper bound of the Frobenius norm of W (d×C).
        range: largest |Y|, bias included, that replies must carry: an upper bound over rows within ``row_norm``, or
            what :meth:`promising` makes of it.
        row_norm: largest L2 norm of a row of X.
        precision: largest absolute error of an output.
        column_norm: an upper bound of the norm of a column of W, where it is known.
    """

    rows: int
    dimension: int
    outputs: int
    frobenius_norm: float
    range: float
    row_norm: float = 1.0
    precision: float = DEFAULT_PRECISION
    column_norm: float = inf

    def __post_init__(self) -> None:
        counts = (self.rows, self.dimension, self.outputs)
        sizes = (self.frobenius_norm, self.range, self.row_norm, self.precision)
        if min(counts) < 1 or max(counts) > LARGEST_COUNT:
            raise InvalidInputError(f"rows, dimension and outputs must be 1 to 2^24, not {counts}")
        if not all(0 < size < 1e12 for size in sizes):
            raise InvalidInputError(
                "the norms, the range and the precision of a product must be positive and finite; "
                "check the weights for NaN, infinity and for being all zero"
            )

    def block_norm(self, outputs: int) -> float:
        """An upper bound of the Frobenius norm of so many columns of W: errors meet no others."""
        return min(self.frobenius_norm, self.column_norm * sqrt(1 << (outputs - 1).bit_length()))

    def promising(self, seen: float) -> ProductShape:
        """The same with a range promised from outputs seen: no real row comes near the bound that norms give.

        Args:
            seen: the largest |Y| of rows like those that will come. Twice as much is promised, and at least so much
                that clients notice every output beyond it.
        """
        smallest = _noticed_range(self.range, self.precision)
        return replace(self, range=min(self.range, max(_SEEN_MARGIN * seen, smallest)))


def _noticed_range(bound: float, precision: float) -> float:
    """The smallest range with which a client notices every output that leaves it, |Y| being ``bound`` at most.

    An output beyond the range that stays below q/Δ less the range, errors aside, decrypts to a value beyond the range
    as well, whether it wraps around or not.
    """
    return (bound * (1 + NORM_TOLERANCE) + 2 * precision) / (_ROOM - 1)


def _row_choices(rows: int, degree: int) -> list[int]:
    limit = min(rows, degree)
    return sorted({limit, *(1 << bit for bit in range(limit.bit_length()))}) if limit else []


def _inner_choices(dimension: int, limit: int) -> list[int]:
    """Numbers of inner elements worth trying: the dimension cut in 1, 2, … equal parts."""
    parts = {
        *range(1, min(dimension, 64) + 1),
        *(ceil(64 * 1.25**step) for step in range(40)),
        dimension,
    }
    return sorted({ceil(dimension / part) for part in parts if ceil(dimension / part) <= limit})


def _blocks(shape: ProductShape, degree: int, largest_outputs: int) -> Iterator[Block]:
    """Blocks worth trying whose plans hold no more ciphertexts than a plan may."""
    for rows in _row_choices(min(shape.rows, largest_outputs), degree):
        for inner in _inner_choices(shape.dimension, degree // rows):
            outputs = min(shape.outputs, degree // (rows * inner), largest_outputs // rows)
            block = Block(rows, inner, ceil(shape.outputs / ceil(shape.outputs / outputs)))
            row_blocks, inner_blocks, output_blocks = block.counts(shape.rows, shape.dimension, shape.outputs)
            if row_blocks * max(inner_blocks, output_blocks) <= LARGEST_CIPHERTEXTS:
                yield block


@lru_cache(maxsize=4096)
def _scaled(shape: ProductShape, parameters: ParameterSet, block_norm: float) -> PackingPlan | None:
    """A plan, its block aside, with scales that fill the modulus, for blocks whose weights have this norm.

    The weights are rounded as coarsely as costs no more than `_COARSENESS_BITS` a coefficient over the shortest reply.
    """
    bound = 2.0 ** ceil(log2(shape.range))
    scale_bits = floor(log2(parameters.modulus / (4 * bound)))
    plans = [
        plan
        for weight_bits in range(max(1, scale_bits - LARGEST_SCALE_BITS), min(scale_bits, LARGEST_SCALE_BITS + 1))
        if (plan := _shortest_reply(shape, parameters, block_norm, bound, scale_bits - weight_bits, weight_bits))
    ]
    if not plans:
        return None
    longest = min(plan.reply_bits for plan in plans) + _COARSENESS_BITS
    return next(plan for plan in plans if plan.reply_bits <= longest)


def _shortest_reply(
    shape: ProductShape, parameters: ParameterSet, block_norm: float, bound: float, input_bits: int, weight_bits: int
) -> PackingPlan | None:
    """The plan, its block aside, with these scales and the fewest bits of reply; None where the error is too large."""
    if shape.row_norm * 2.0**input_bits > min(2.0**EXACT_BITS, parameters.modulus / 2):
        return None
    bits = parameters.modulus_bits
    plan = PackingPlan(
        parameters, 1, 1, 1, Block(1, 1, 1), input_bits, weight_bits, bits - 1, bound, shape.precision, shape.row_norm
    )
    budget = plan.error_budget(block_norm)
    left = plan.noise_std**2 - (budget.noise**2 - budget.truncation**2)
    if left < budget.truncation**2:
        return None
    dropped = 1 + floor(log2(sqrt(left) / budget.truncation))
    return replace(plan, reply_bits=max(1, bits - dropped))


def _packed(shape: ProductShape, parameters: ParameterSet, table: SecurityTable) -> Iterator[PackingPlan]:
    smallest = _scaled(shape, parameters, shape.block_norm(1))
    if smallest is None:
        return
    # How much an output tells depends on the sum of the scales' bits, which is the same for all blocks.
    for block in _blocks(shape, parameters.poly_degree, largest_outputs(smallest, table)):
        scaled = _scaled(shape, parameters, shape.block_norm(block.outputs))
        if scaled is not None:
            yield replace(scaled, rows=shape.rows, dimension=shape.dimension, outputs=shape.outputs, block=block)


@lru_cache(maxsize=256)
def candidates(
    shape: ProductShape,
    table: SecurityTable = SecurityTable.CLASSICAL,
    minimum_security: int = MINIMUM_SECURITY,
    max_bytes: int = 2 << 30,
    streamed: bool = False,
    max_modulus_bits: int = 64,
) -> tuple[PackingPlan, ...]:
    """The best plan for each parameter set that can do the product, cheapest first.

    Args:
        shape: the product.
        table: largest moduli that count as secure.
        minimum_security: bits that a set must reach by the table.
        max_bytes: limit of what the silo holds: the encoded weights, or, streamed, the sums.
        streamed: the product is computed one inner block at a time (`StreamedProduct`).
        max_modulus_bits: widest modulus to consider.

    Raises:
        InvalidInputError: no set reaches the precision within the range and security demanded.
    """
    best = []
    order = _streamed_order if streamed else _order
    for parameters in PARAMETER_SETS.values():
        if parameters.security_level(table) < minimum_security or parameters.modulus_bits > max_modulus_bits:
            continue
        plans = _packed(shape, parameters, table)
        affordable = [
            plan for plan in plans if (plan.cost.accumulator_bytes if streamed else plan.cost.weight_bytes) <= max_bytes
        ]
        if affordable:
            best.append(min(affordable, key=order))
    if not best:
        raise InvalidInputError(
            f"no parameter set of at least {minimum_security} bits ({table.value} table) can hold outputs up to "
            f"±{shape.range:.3g} with an error of {shape.precision:.3g} (weights of norm "
            f"{shape.frobenius_norm:.3g}) and {max_bytes >> 20} MiB of {'sums' if streamed else 'encoded weights'}: "
            "ask for a coarser precision, regularise the weights, or allow more memory"
        )
    return tuple(sorted(best, key=order))


def _order(plan: PackingPlan) -> tuple[float, int, str]:
    return plan.cost.weighed_ms, plan.cost.request_bytes + plan.cost.reply_bytes, plan.id


def _streamed_order(plan: PackingPlan) -> tuple[float, int, str]:
    milliseconds, size, name = _order(plan)
    return milliseconds + plan.cost.weight_ms, size, name


def plan_product(
    shape: ProductShape,
    table: SecurityTable = SecurityTable.CLASSICAL,
    minimum_security: int = MINIMUM_SECURITY,
) -> PackingPlan:
    """The cheapest plan (deterministic).

    Raises:
        InvalidInputError: no set reaches the precision within the range and security demanded.
    """
    return candidates(shape, table, minimum_security)[0]
