"""Weights of many outputs as residues in a file that processes share, and their exact product with a query.

In NTT form a product of polynomials is one of residues, coefficient by coefficient. So an encrypted product with
I inner blocks and O output blocks is, for each of the N coefficients, a product of a row of I residues with an
I×O matrix of them, modulo q. The query's residues are cut into digits so short that float64 holds every sum
exactly; then it is N small matrix products in BLAS, which also leaves other threads running.

The file is a safetensors file, mapped into memory: its pages are shared by all processes that serve it. A residue
takes 4 bytes where q is at most 32 bits, else 5; as a SEAL plaintext it takes 8, in each process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.ckks.backend import Backend, backend
from sealign.ckks.packing import Integers, pack_weights
from sealign.ckks.plan import PackingPlan
from sealign.ckks.serialization import Words, ciphertext_from_coefficients, ciphertext_words
from sealign.errors import InvalidInputError, StorageError
from sealign.files import ArrayWriter, map_arrays

LARGEST_MODULUS_BITS = 40
"""Of a plan for which residues can be kept."""

_PART_BLOCKS = 32
_EXACT_BITS = 53
_SLAB = 16  # coefficients at once: their residues stay in the cache

Columns: TypeAlias = NDArray[np.float64]


def residue_bytes(plan: PackingPlan) -> int:
    """Bytes of a weight's residue in the file."""
    return 4 if plan.parameters.modulus_bits <= 32 else 5


class ResidueWeights:
    """The weights of one plan, encoded: reads what :meth:`write` wrote.

    Args:
        plan: with rows of one block, and a modulus of at most 40 bits.
        path: of the file.

    Raises:
        StorageError: the file is missing or was not written whole for this plan.
    """

    def __init__(self, plan: PackingPlan, path: Path) -> None:
        arrays, metadata = map_arrays(path)
        self._plan = plan
        if metadata.get("plan") != plan.id or set(arrays) != set(_shapes(plan)):
            raise StorageError(f"{path} holds the weights of another plan; delete it")
        self._low = [arrays[f"low.{part}"] for part in range(len(part_blocks(plan)))]
        self._high = [arrays.get(f"high.{part}") for part in range(len(part_blocks(plan)))]
        inner_bits = (plan.counts[1] - 1).bit_length()
        self._digit_bits = _EXACT_BITS - plan.parameters.modulus_bits - inner_bits
        self._digits = -(-plan.parameters.modulus_bits // self._digit_bits)

    @staticmethod
    def write(path: Path, plan: PackingPlan, columns: Iterator[Columns]) -> None:
        """Encode weights into a file, atomically, in memory that does not depend on the number of outputs.

        Args:
            path: of the file.
            plan: made by the planner for the weights.
            columns: the weights of each part's outputs, shape (d, those of ``part_outputs(plan)``), in order.

        Raises:
            InvalidInputError: weights of another shape or not finite, or a plan that the file cannot hold.
            StorageError: the file could not be written; an earlier one is intact.
        """
        require_residues(plan)
        with ArrayWriter(path, _shapes(plan), {"plan": plan.id}, mode=0o600) as writer:
            for part, (outputs, weight) in enumerate(zip(part_outputs(plan), columns, strict=True)):
                if weight.shape != (plan.dimension, outputs.stop - outputs.start) or not np.isfinite(weight).all():
                    raise InvalidInputError(
                        f"the plan asks for finite weights of outputs {outputs.start} to {outputs.stop}, and got an "
                        f"array of shape {weight.shape}"
                    )
                words = _encoded(plan, np.rint(weight * 2.0**plan.weight_scale_bits).astype(np.int64))
                writer.append(f"low.{part}", words.astype(np.uint32))  # the low 32 bits
                if residue_bytes(plan) == 5:
                    writer.append(f"high.{part}", (words >> np.uint64(32)).astype(np.uint8))

    def digits(self, query: Words) -> Columns:
        """A query's residues, shape (I, 2, N), cut into digits for :meth:`product`: shape (N, digits·2, I)."""
        shifts = (np.arange(self._digits) * self._digit_bits).astype(np.uint64)[:, None, None, None]
        cut = (query[None] >> shifts) & np.uint64((1 << self._digit_bits) - 1)
        rows = cut.transpose(3, 0, 2, 1).astype(np.float64)
        return np.ascontiguousarray(rows.reshape(query.shape[2], -1, query.shape[0]))

    def product(self, digits: Columns, part: int) -> Words:
        """Residues of the sums over the inner blocks for the output blocks of a part: shape (blocks, 2, N)."""
        low, high = self._low[part], self._high[part]
        degree, _, blocks = low.shape
        sums = np.empty((degree, digits.shape[1], blocks))
        for start in range(0, degree, _SLAB):
            slab = slice(start, start + _SLAB)
            weights = low[slab].astype(np.float64)
            if high is not None:
                weights += high[slab] * 2.0**32
            np.matmul(digits[slab], weights, out=sums[slab])
        return self._joined(sums.reshape(degree, self._digits, 2, blocks))

    def _joined(self, sums: Columns) -> Words:
        """Sums modulo q from those of digits, shape (N, digits, 2, blocks), as (blocks, 2, N)."""
        modulus, shift = np.uint64(self._plan.parameters.modulus), np.uint64(self._digit_bits)
        joined: Words = sums[:, -1].astype(np.uint64) % modulus
        for digit in reversed(range(self._digits - 1)):
            joined = ((joined << shift) + sums[:, digit].astype(np.uint64)) % modulus
        return np.ascontiguousarray(joined.transpose(2, 1, 0))


def require_residues(plan: PackingPlan) -> None:
    """Refuse a plan whose weights cannot be kept as residues.

    Raises:
        InvalidInputError: several row blocks, too wide a modulus, or too many inner blocks.
    """
    spare = _EXACT_BITS - plan.parameters.modulus_bits - (plan.counts[1] - 1).bit_length()
    if plan.counts[0] != 1 or plan.parameters.modulus_bits > LARGEST_MODULUS_BITS or spare < 1:
        raise InvalidInputError(
            f"weights under {plan.parameters.name} with {plan.counts[0]} row blocks and {plan.counts[1]} inner blocks "
            f"cannot be kept as residues: ask for one row block and a modulus of at most {LARGEST_MODULUS_BITS} bits"
        )


def part_blocks(plan: PackingPlan) -> list[range]:
    """Output blocks of each part in which a product is computed and sent."""
    total = plan.counts[2]
    return [range(first, min(first + _PART_BLOCKS, total)) for first in range(0, total, _PART_BLOCKS)]


def part_outputs(plan: PackingPlan) -> list[slice]:
    """Outputs of each part."""
    width = plan.block.outputs
    return [slice(part.start * width, min(part.stop * width, plan.outputs)) for part in part_blocks(plan)]


def _shapes(plan: PackingPlan) -> dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]:
    degree, inner = plan.parameters.poly_degree, plan.counts[1]
    shapes: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]] = {}
    for part, blocks in enumerate(part_blocks(plan)):
        shapes[f"low.{part}"] = (degree, inner, len(blocks)), np.dtype(np.uint32)
        if residue_bytes(plan) == 5:
            shapes[f"high.{part}"] = (degree, inner, len(blocks)), np.dtype(np.uint8)
    return shapes


def _encoded(plan: PackingPlan, integers: Integers) -> Words:
    """Residues, shape (N, inner blocks, output blocks), of integer weights, shape (d, outputs of some blocks)."""
    working = backend(plan.parameters)
    packed = pack_weights(integers, plan.block, plan.parameters.poly_degree)
    polynomials = packed.reshape(-1, plan.parameters.poly_degree)
    words = np.empty(polynomials.shape, dtype=np.uint64)
    for first in range(0, len(polynomials), 2):
        words[first : first + 2] = _transformed(working, polynomials[first : first + 2])
    return np.ascontiguousarray(words.reshape(packed.shape).transpose(2, 0, 1))


def _transformed(working: Backend, polynomials: Integers) -> Words:
    """One or two polynomials in NTT form, by SEAL, which transforms ciphertexts: two polynomials each."""
    words = np.ones((2, polynomials.shape[1]), dtype=np.uint64)
    words[: len(polynomials)] = (polynomials % working.parameters.modulus).astype(np.uint64)
    if not words[1].any():  # refused, and its transform is known
        return np.stack([_transformed(working, polynomials[:1])[0], words[1]])
    ciphertext = ciphertext_from_coefficients(working.context, words)
    working.evaluator.transform_to_ntt_inplace(ciphertext)
    transformed: Words = ciphertext_words(ciphertext)
    return transformed[: len(polynomials)]
