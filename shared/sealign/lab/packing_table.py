"""Whether Galois keys would pay for a product with many outputs: the plan against two packings that use them.

Both alternatives are predicted, not built: sizes follow from the packing, times from one rotation and one product
measured with SEAL on one core. Both need a modulus of 54 bits, and a special prime of 55 for switching keys, at N=4096;
SEAL's table allows no more there.

- *Oblivious expansion* (Angel et al., SealPIR, IEEE S&P 2018, section 3.3): one ciphertext carries the whole row, and
  the silo expands it into the ciphertexts of the inner blocks, one key switch each.
- *Baby-step giant-step* (Halevi and Shoup, CRYPTO 2018, section 3): rows in slots, diagonals of the weights, rotations.
  A reply carries all of both polynomials, since every coefficient depends on every slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from rich.table import Table

from sealign.ckks import (
    LARGEST_MODULUS_BITS,
    PARAMETER_SETS,
    PackingPlan,
    ProductShape,
    SecurityTable,
    candidates,
    residue_bytes,
)
from sealign.ckks.plan import largest_outputs
from sealign.ckks.serialization import packed_size
from sealign.lab.plan_table import short

_SWITCHING = "ckks-4096-54"
_SPECIAL_BITS = 55
_ROTATION_MS, _PRODUCT_MS = 0.41, 0.027
_LINK_BYTES_PER_MS = 12_500.0  # 100 Mbit/s, as the planner has it


@dataclass(frozen=True)
class Packing:
    """Predicted cost of one row through one packing."""

    name: str
    parameters: str
    keys: int
    key_bytes: int
    request_bytes: int
    reply_bytes: int
    rotations: int
    products: int
    server_ms: float
    weight_bytes: int

    @property
    def total_ms(self) -> float:
        """Wire and silo, one after the other."""
        return (self.request_bytes + self.reply_bytes) / _LINK_BYTES_PER_MS + self.server_ms


def packings(shape: ProductShape, table: SecurityTable = SecurityTable.CLASSICAL) -> list[Packing]:
    """The plan that would be served, and the alternatives, for products of one row.

    Raises:
        InvalidInputError: no set reaches the precision within the range and security demanded.
    """
    plan = candidates(shape, table, max_bytes=1 << 40, max_modulus_bits=LARGEST_MODULUS_BITS)[0]
    cost = plan.cost
    served = Packing(
        "coefficients (served)", plan.parameters.name, 0, 0, cost.request_bytes, cost.reply_bytes, 0, cost.products,
        cost.server_ms, cost.weight_bytes // 8 * residue_bytes(plan),
    )  # fmt: skip
    plans = candidates(shape, table, max_bytes=1 << 40)
    switching = next((other for other in plans if other.parameters.name == _SWITCHING), None)
    if switching is None:
        return [served]
    return [served, _expansion(switching), _giant_steps(switching, largest_outputs(switching, table))]


def _key_bytes() -> int:
    """A key for one rotation: seeded, so one polynomial, modulo both primes."""
    return 2 * packed_size(PARAMETER_SETS[_SWITCHING].poly_degree, _SPECIAL_BITS)


def _expansion(plan: PackingPlan) -> Packing:
    cost, keys = plan.cost, ceil(log2(max(plan.counts[1], 2)))
    request = cost.request_bytes // cost.requests
    return Packing(
        "oblivious expansion", plan.parameters.name, keys, keys * _key_bytes(), request, cost.reply_bytes,
        plan.counts[1], cost.products, cost.server_ms + plan.counts[1] * _ROTATION_MS, cost.weight_bytes,
    )  # fmt: skip


def _giant_steps(plan: PackingPlan, most_outputs: int) -> Packing:
    degree = plan.parameters.poly_degree
    diagonals = 1 << (plan.dimension - 1).bit_length()
    replies = ceil(plan.outputs / min(degree // 2, most_outputs))
    baby = min((1 << bit for bit in range(diagonals.bit_length())), key=lambda b: b + replies * (diagonals // b))
    giant = diagonals // baby
    rotations, products = baby - 1 + replies * (giant - 1), replies * diagonals
    sanitising = plan.cost.server_ms / plan.cost.replies * replies * 0.5  # about half of a reply's time there
    return Packing(
        "baby steps, giant steps", plan.parameters.name, baby + giant - 2, (baby + giant - 2) * _key_bytes(),
        packed_size(degree, plan.parameters.modulus_bits), replies * 2 * packed_size(degree, plan.reply_bits),
        rotations, products, rotations * _ROTATION_MS + products * _PRODUCT_MS + sanitising, products * degree * 8,
    )  # fmt: skip


def packing_table(shape: ProductShape, table: SecurityTable = SecurityTable.CLASSICAL) -> Table:
    """The packings for a terminal.

    Raises:
        InvalidInputError: no set reaches the precision within the range and security demanded.
    """
    view = Table(
        title=f"one row, d={shape.dimension}, C={shape.outputs}, errors up to {shape.precision:.3g}",
        caption="predictions for one core and a link of 100 Mbit/s; outputs in a reply are limited as SECURITY.md says",
        box=None,
        pad_edge=False,
    )
    for heading in (
        "packing", "parameters", "Galois\nkeys", "keys\nMB", "up\nKB", "down\nKB", "rota-\ntions", "prod-\nucts",
        "silo\nms", "silo and\nwire ms", "weights\nMB",
    ):  # fmt: skip
        view.add_column(heading, justify="left" if heading in ("packing", "parameters") else "right", no_wrap=True)
    for row in packings(shape, table):
        view.add_row(
            row.name,
            row.parameters,
            str(row.keys),
            short(row.key_bytes / 1e6),
            short(row.request_bytes / 1e3),
            short(row.reply_bytes / 1e3),
            str(row.rotations),
            str(row.products),
            short(row.server_ms),
            short(row.total_ms),
            short(row.weight_bytes / 1e6),
        )
    return view
