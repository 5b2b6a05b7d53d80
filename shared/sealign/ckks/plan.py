"""The packing plan: all that client and silo must agree on to multiply under encryption.

All scales are powers of two. With input scale Δx, weight scale Δw and Δ = Δx·Δw, an output coefficient carries Y·Δ
plus errors. The plan fills the modulus, q ≥ 4·range·Δ, so that no logit carries more than log2(4·range / flood) bits.
The bit of room above the range lets the client notice, for half the values or more, a reply under a wrong key.

The client rounds what it decrypts to a grid, and the promised precision covers both: half a step of the grid, and seven
standard deviations of the error before it, whose parts are those of `ErrorBudget`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import e, floor, isfinite, log2, pi, sqrt

from sealign.ckks.cost import Cost
from sealign.ckks.lifetime import replies_per_key
from sealign.ckks.packing import Block
from sealign.ckks.parameters import ERROR_STD, ParameterSet
from sealign.errors import InvalidInputError
from sealign.security import SecurityTable

DEFAULT_PRECISION = 1 / 64

TAIL = 7.0
"""Standard deviations of the error within the promised precision: an output misses it with probability 3e-12."""

NORM_TOLERANCE = 1e-3
"""How much longer than the promised norm a row may be, in proportion."""

FLOOD_SHARE = 0.47
"""Share of the permitted error variance that is flood noise; most of the rest is the weights' rounding."""

BIAS_BITS = 2
"""Bits that the bias has below those of the weights."""

LARGEST_COUNT = 1 << 24
"""Of rows, dimension and outputs."""

LARGEST_CIPHERTEXTS = 1 << 18
"""In one request or one reply, streamed or not."""

LARGEST_SCALE_BITS = 64
"""Of the input scale and the weight scale."""

EXACT_BITS = 50
"""Rows are integers of at most so many bits, which float64 holds exactly."""

_FIELDS = struct.Struct("<IQ3I3I3H3d")


@dataclass(frozen=True)
class ErrorBudget:
    """Standard deviations of the parts of an output's error, in units of the output."""

    encryption: float
    """Encryption and rounding errors of the query times the weights."""
    weights: float
    """Rounding of the weights and the bias to integers."""
    rerandomisation: float
    """The fresh encryption of zero."""
    truncation: float
    """Low bits dropped from the reply."""
    flood: float
    """Gaussian noise added on purpose."""
    rounding: float
    """Rounding of what is decrypted to the plan's grid."""

    @property
    def noise(self) -> float:
        """Standard deviation of the error before the client rounds."""
        parts = (self.encryption, self.weights, self.rerandomisation, self.truncation, self.flood)
        return sqrt(sum(part * part for part in parts))

    @property
    def total(self) -> float:
        """Standard deviation of the whole error."""
        return sqrt(self.noise**2 + self.rounding**2)


@dataclass(frozen=True)
class PackingPlan:
    """A packing, its scales and its promises. It validates itself: a plan that exists can be used.

    Attributes:
        parameters: degree and modulus.
        rows: largest number of rows in one request, 1 to 2^24.
        dimension: inner dimension d.
        outputs: number of outputs C.
        block: rows, inner elements and outputs of one ciphertext multiplication.
        input_scale_bits: log2 Δx.
        weight_scale_bits: log2 Δw.
        reply_bits: bits of each coefficient that a reply keeps.
        range: largest |Y| that replies carry.
        precision: largest absolute error of an output.
        row_norm: largest L2 norm of a row.

    Raises:
        InvalidInputError: names the field that is wrong.
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

    def __post_init__(self) -> None:
        bits = self.parameters.modulus_bits
        for name in ("rows", "dimension", "outputs"):
            self._require(name, 1 <= getattr(self, name) <= LARGEST_COUNT, "1 to 2^24")
        for name in ("rows", "inner", "outputs"):
            self._require(f"block.{name}", getattr(self.block, name) >= 1, "at least 1", getattr(self.block, name))
        degree = self.parameters.poly_degree
        self._require("block", self.block.size <= degree, f"rows·inner·outputs of at most {degree}")
        for name in ("input_scale_bits", "weight_scale_bits"):
            self._require(name, 1 <= getattr(self, name) <= LARGEST_SCALE_BITS, "1 to 64")
        self._require("reply_bits", 1 <= self.reply_bits < bits, f"1 to {bits - 1}")
        for name in ("range", "precision", "row_norm"):
            value = getattr(self, name)
            self._require(name, isfinite(value) and 2.0**-60 <= value <= 2.0**60, "2^-60 to 2^60")
        widest = min(2.0**EXACT_BITS, self.parameters.modulus / 2)
        scaled = self.row_norm * 2.0**self.input_scale_bits
        self._require("input_scale_bits", scaled <= widest, f"such that rows fit {widest:.3g}")
        half = self.parameters.modulus / (2 * self.output_scale)
        self._require("range", self.range < half, f"under {half:.3g}, what the scales leave of the modulus")
        row_blocks, inner_blocks, output_blocks = self.counts
        largest = row_blocks * max(inner_blocks, output_blocks)
        self._require("block", largest <= LARGEST_CIPHERTEXTS, f"so large that 2^18 ciphertexts hold {self.rows} rows")

    def _require(self, field: str, holds: bool, allowed: str, value: object = None) -> None:
        if not holds:
            shown = value if value is not None else getattr(self, field)
            raise InvalidInputError(
                f"packing plan: {field} is {shown}; it must be {allowed}. The other side runs an incompatible or "
                "faulty version; nothing was encrypted."
            )

    @cached_property
    def id(self) -> str:
        """The name on the wire: 16 bytes of SHA-256 over the fields as PROTOCOL.md lays them out, in hexadecimal."""
        fields = _FIELDS.pack(
            self.parameters.poly_degree, self.parameters.modulus, self.rows, self.dimension, self.outputs,
            self.block.rows, self.block.inner, self.block.outputs,
            self.input_scale_bits, self.weight_scale_bits, self.reply_bits, self.range, self.precision, self.row_norm,
        )  # fmt: skip
        return sha256(b"sealign plan v1\0" + fields).hexdigest()[:32]

    @cached_property
    def output_scale(self) -> float:
        """Δ = Δx·Δw."""
        return 2.0 ** (self.input_scale_bits + self.weight_scale_bits)

    @property
    def bias_scale(self) -> float:
        """Scale to which the bias is rounded, before it is brought to Δ."""
        return 2.0 ** (self.weight_scale_bits + min(BIAS_BITS, self.input_scale_bits))

    @property
    def dropped_bits(self) -> int:
        """Low bits of each coefficient that a reply leaves out."""
        return self.parameters.modulus_bits - self.reply_bits

    @cached_property
    def grid(self) -> float:
        """Step to which decrypted outputs are rounded: the largest power of two of at most half the precision."""
        return 2.0 ** floor(log2(self.precision / 2))

    @property
    def noise_std(self) -> float:
        """Upper bound of the standard deviation of an output's error before it is rounded to the grid."""
        return (self.precision - self.grid / 2) / TAIL

    @cached_property
    def flood_std(self) -> float:
        """Standard deviation of the flood noise, in units of the output."""
        return sqrt(FLOOD_SHARE) * self.noise_std

    @property
    def error_std(self) -> float:
        """Upper bound of the standard deviation of an output's whole error."""
        return sqrt(self.noise_std**2 + self.grid**2 / 12)

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
        counts = self.block.counts(rows, self.dimension, self.outputs)
        return Cost.of(self.block, counts, self.parameters.poly_degree, self.parameters.modulus_bits, self.reply_bits)

    def replies_per_key(self, labels: int, table: SecurityTable = SecurityTable.CLASSICAL) -> int:
        """Return how many replies of one row a key may answer if one of ``labels`` is published for each."""
        return replies_per_key(self.parameters, labels, table=table)

    def error_budget(self, frobenius_norm: float) -> ErrorBudget:
        """Predicted error for output blocks whose weights have at most this Frobenius norm."""
        secret = 2 * self.parameters.poly_degree / 3  # expected squared norm of a ternary polynomial
        weight_step, bias_step = 2.0**-self.weight_scale_bits, 1 / self.bias_scale
        return ErrorBudget(
            encryption=sqrt(ERROR_STD**2 + 1 / 12) * frobenius_norm / 2.0**self.input_scale_bits,
            weights=sqrt(((self.row_norm * weight_step) ** 2 + bias_step**2) / 12),
            rerandomisation=ERROR_STD * sqrt(1 + 2 * secret) / self.output_scale,
            truncation=2.0**self.dropped_bits * sqrt((1 + secret) / 12) / self.output_scale,
            flood=self.flood_std,
            rounding=self.grid / sqrt(12),
        )


def largest_outputs(plan: PackingPlan, table: SecurityTable = SecurityTable.CLASSICAL) -> int:
    """Return the maximum number of outputs (b·c) of one reply under the plan's parameters and scales.

    A malformed public key lets a client read up to :attr:`PackingPlan.bits_per_output` bits about the
    ephemeral ternary secret behind a reply from each output. So many outputs are allowed that what
    is left of that secret still gives 128 bits.
    """
    return int(min(plan.parameters.spare_bits(table) / max(plan.bits_per_output, 1.0), plan.parameters.poly_degree))
