"""The planner: from the shape of a product and the precision wanted to parameters, scales and packing.

All scales are powers of two. With input scale Δx, weight scale Δw and Δ = Δx·Δw, an output coefficient
carries Y·Δ plus errors; the planner fills the modulus, q ≥ 4·range·Δ, so that no logit carries more than
log2(4·range / flood) bits. The bit of room above the range lets the client notice, for half the values
or more, a reply under a wrong key. The error has five parts, each with the variance given in `ErrorBudget`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from math import ceil, e, floor, inf, log2, pi, sqrt

from sealign.ckks.messages import SEED_BYTES
from sealign.ckks.packing import Block
from sealign.ckks.parameters import (
    ERROR_STD,
    MINIMUM_SECURITY,
    PARAMETER_SETS,
    ParameterSet,
    SecurityTable,
)
from sealign.ckks.serialization import packed_size
from sealign.errors import InvalidInputError

DEFAULT_PRECISION = 1 / 256

TAIL = 7.0
"""Standard deviations within the promised precision: an output misses it with probability 3e-12."""

NORM_TOLERANCE = 1e-3
"""How much longer than the promised norm a row may be, in proportion."""

_ROOM = 7.999
"""q/Δ over the range, at least: all moduli lie just below a power of two, so scales that are ones leave 8, nearly."""

FLOOD_SHARE = 0.64
"""Share of the permitted error variance that is flood noise."""

# Server and client time of one coefficient in nanoseconds: rounded from profiles of the stages on one core of a
# 2-core x86-64 machine. They steer the choice of a plan, and only their ratios matter to it.
_EXPAND_NS, _MULTIPLY_NS, _SANITISE_NS = 60.0, 9.0, 150.0
_ENCRYPT_NS, _DECRYPT_NS = 250.0, 125.0
_ENCODE_NS = 50.0
_UNALIGNED = 1.4
"""The same where words are not whole bytes: they take longer to pack, and SEAL longer to save."""
_LINK_BYTES_PER_MS = 12_500.0
"""The link the plan is optimised for: 100 Mbit/s."""


@dataclass(frozen=True)
class ProductShape:
    """What is to be multiplied, and how exactly.

    Attributes:
        rows: largest number of rows B in one request.
        dimension: inner dimension d.
        outputs: number of outputs C.
        frobenius_norm: an upper bound of the Frobenius norm of W (d×C).
        range: largest |Y|, bias included, that replies must carry: an upper bound over rows within ``row_norm``, or at
            least what :func:`noticed_range` asks for.
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
        if min(counts) < 1 or max(counts) > 1 << 24:
            raise InvalidInputError(f"rows, dimension and outputs must be 1 to 2^24, not {counts}")
        if not all(0 < size < 1e12 for size in sizes):
            raise InvalidInputError(
                "the norms, the range and the precision of a product must be positive and finite; "
                "check the weights for NaN, infinity and for being all zero"
            )

    def block_norm(self, outputs: int) -> float:
        """An upper bound of the Frobenius norm of so many columns of W: errors meet no others."""
        return min(self.frobenius_norm, self.column_norm * sqrt(1 << (outputs - 1).bit_length()))


def noticed_range(bound: float, precision: float) -> float:
    """The smallest range with which a client notices every output that leaves it, |Y| being ``bound`` at most.

    An output beyond the range that stays below q/Δ less the range, errors aside, decrypts to a value beyond the range
    as well, whether it wraps around or not.
    """
    return (bound * (1 + NORM_TOLERANCE) + 2 * precision) / (_ROOM - 1)


@dataclass(frozen=True)
class ErrorBudget:
    """Standard deviations of the parts of an output's error, in units of the output."""

    encryption: float
    """Encryption and rounding errors of the query times the weights."""
    weights: float
    """Rounding of the weights to integers."""
    rerandomisation: float
    """The fresh encryption of zero."""
    truncation: float
    """Low bits dropped from the reply."""
    flood: float
    """Gaussian noise added on purpose."""

    @property
    def total(self) -> float:
        """Standard deviation of the whole error."""
        parts = (self.encryption, self.weights, self.rerandomisation, self.truncation, self.flood)
        return sqrt(sum(part * part for part in parts))


@dataclass(frozen=True)
class Cost:
    """Predicted cost of one request."""

    request_bytes: int
    reply_bytes: int
    products: int
    requests: int
    replies: int
    server_ms: float
    client_ms: float
    weight_bytes: int
    """Memory of the silo's encoded weights."""
    weight_ms: float
    """Server time to encode the weights: once, or in every request where they are streamed."""
    accumulator_bytes: int
    """Memory of the silo's sums where the request is streamed."""

    @property
    def milliseconds(self) -> float:
        """What the planner minimises: client, wire (100 Mbit/s) and server time, one after the other."""
        wire = (self.request_bytes + self.reply_bytes) / _LINK_BYTES_PER_MS
        return self.client_ms + wire + self.server_ms


@dataclass(frozen=True)
class PackingPlan:
    """How one shape of product is packed, scaled, encrypted and answered: all that both sides must share.

    Attributes:
        rows, dimension, outputs: largest batch B, inner dimension d, outputs C.
        block: rows, inner elements and outputs of one ciphertext multiplication.
        input_scale_bits, weight_scale_bits: log2 of the scales Δx and Δw.
        reply_bits: bits kept of each coefficient of a reply.
        range: largest |Y| that a reply carries, a power of two; larger ones are noticed (see :class:`ProductShape`).
        precision: promised absolute error of an output.
    """

    parameters: ParameterSet
    rows: int
    dimension: int
    outputs: int
    block: Block
    input_scale_bits: int
    weight_scale_bits: int
    reply_bits: int
    range: float
    precision: float
    row_norm: float = 1.0

    @cached_property
    def id(self) -> str:
        """Content hash that names the plan on the wire."""
        content = (
            self.parameters.name, self.rows, self.dimension, self.outputs, self.block, self.input_scale_bits,
            self.weight_scale_bits, self.reply_bits, self.range, self.precision, self.row_norm,
        )  # fmt: skip
        return sha256(repr(content).encode()).hexdigest()[:16]

    @property
    def output_scale(self) -> float:
        """Δ = Δx·Δw."""
        return 2.0 ** (self.input_scale_bits + self.weight_scale_bits)

    @property
    def dropped_bits(self) -> int:
        """Low bits of each coefficient that a reply leaves out."""
        return self.parameters.modulus_bits - self.reply_bits

    @property
    def flood_std(self) -> float:
        """Standard deviation of the flood noise, in units of the output."""
        return sqrt(FLOOD_SHARE) * self.precision / TAIL

    @property
    def error_std(self) -> float:
        """Upper bound of the standard deviation of an output's whole error."""
        return self.precision / TAIL

    @property
    def bits_per_output(self) -> float:
        """Upper bound of what one output tells, in bits: the capacity of Z_q under the flood."""
        return log2(self.parameters.modulus / (self.flood_std * self.output_scale * sqrt(2 * pi * e)))

    @cached_property
    def counts(self) -> tuple[int, int, int]:
        """Row blocks, inner blocks and output blocks of a full batch."""
        return self.block.counts(self.rows, self.dimension, self.outputs)

    @cached_property
    def cost(self) -> Cost:
        """Predicted bytes and time of one full request."""
        return self.cost_of(self.rows)

    def cost_of(self, rows: int) -> Cost:
        """Predicted bytes and time of one request with this many rows."""
        row_blocks, inner_blocks, output_blocks = self.block.counts(rows, self.dimension, self.outputs)
        degree, bits = self.parameters.poly_degree, self.parameters.modulus_bits
        requests, replies = row_blocks * inner_blocks, row_blocks * output_blocks
        words = _UNALIGNED if bits % 8 else 1.0
        products = requests * output_blocks
        outputs = packed_size(self.block.rows * self.block.outputs, self.reply_bits)
        return Cost(
            request_bytes=requests * (SEED_BYTES + packed_size(degree, bits)),
            reply_bytes=replies * (outputs + packed_size(degree, self.reply_bits)),
            products=products,
            requests=requests,
            replies=replies,
            server_ms=degree
            * (words * (requests * _EXPAND_NS + replies * _SANITISE_NS) + products * _MULTIPLY_NS)
            / 1e6,
            client_ms=degree * words * (requests * _ENCRYPT_NS + replies * _DECRYPT_NS) / 1e6,
            weight_bytes=inner_blocks * output_blocks * degree * 8,
            weight_ms=inner_blocks * output_blocks * degree * _ENCODE_NS / 1e6,
            accumulator_bytes=replies * degree * 16,
        )

    def error_budget(self, frobenius_norm: float) -> ErrorBudget:
        """Predicted error for output blocks whose weights have at most this Frobenius norm."""
        degree = self.parameters.poly_degree
        secret = 2 * degree / 3  # expected squared norm of a ternary polynomial
        return ErrorBudget(
            encryption=sqrt(ERROR_STD**2 + 1 / 12) * frobenius_norm / 2.0**self.input_scale_bits,
            weights=self.row_norm * sqrt(1 / 12) / 2.0**self.weight_scale_bits,
            rerandomisation=ERROR_STD * sqrt(1 + 2 * secret) / self.output_scale,
            truncation=2.0**self.dropped_bits * sqrt((1 + secret) / 12) / self.output_scale,
            flood=self.flood_std,
        )


def largest_outputs(plan: PackingPlan, table: SecurityTable = SecurityTable.CLASSICAL) -> int:
    """Most outputs (b·c) that one reply may carry under the plan's parameters and scales.

    A malformed public key lets a client read up to :attr:`PackingPlan.bits_per_output` bits about the
    ephemeral ternary secret behind a reply from each output. So many outputs are allowed that what
    is left of that secret still gives 128 bits.
    """
    spare_bits = plan.parameters.spare_coefficients(table) * log2(3)
    return int(min(spare_bits / max(plan.bits_per_output, 1.0), plan.parameters.poly_degree))


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
    for rows in _row_choices(min(shape.rows, largest_outputs), degree):
        for inner in _inner_choices(shape.dimension, degree // rows):
            outputs = min(shape.outputs, degree // (rows * inner), largest_outputs // rows)
            yield Block(rows, inner, ceil(shape.outputs / ceil(shape.outputs / outputs)))


@lru_cache(maxsize=4096)
def _scaled(shape: ProductShape, parameters: ParameterSet, block_norm: float) -> PackingPlan | None:
    """A plan with scales that fill the modulus and the shortest reply, for blocks whose weights have this norm."""
    bound = 2.0 ** ceil(log2(shape.range))
    scale_bits = floor(log2(parameters.modulus / (4 * bound)))
    # Split Δ where the encryption error and the weights' rounding error are smallest together.
    balance = log2(sqrt(12) * ERROR_STD * block_norm / shape.row_norm)
    input_bits = round((scale_bits + balance) / 2)
    if not 1 <= input_bits < scale_bits or input_bits + log2(shape.row_norm) > 50:
        return None
    permitted = shape.precision / TAIL
    for reply_bits in range(1, parameters.modulus_bits):
        plan = PackingPlan(
            parameters, shape.rows, shape.dimension, shape.outputs, Block(1, 1, 1), input_bits,
            scale_bits - input_bits, reply_bits, bound, shape.precision, shape.row_norm,
        )  # fmt: skip
        if plan.error_budget(block_norm).total <= permitted:
            return plan
    return None


def _packed(shape: ProductShape, parameters: ParameterSet, table: SecurityTable) -> Iterator[PackingPlan]:
    smallest = _scaled(shape, parameters, shape.block_norm(1))
    if smallest is None:
        return
    # How much an output tells depends on the sum of the scales' bits, which is the same for all blocks.
    for block in _blocks(shape, parameters.poly_degree, largest_outputs(smallest, table)):
        scaled = _scaled(shape, parameters, shape.block_norm(block.outputs))
        if scaled is not None:
            yield replace(scaled, block=block)


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
    return plan.cost.milliseconds, plan.cost.request_bytes + plan.cost.reply_bytes, plan.id


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
