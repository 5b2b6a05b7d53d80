"""The silo's half of the encrypted product: multiply by plaintext weights, always sanitised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from sealign.ckks.backend import Backend, backend
from sealign.ckks.messages import EncryptedMatrix, EncryptedProduct
from sealign.ckks.packing import pack_bias, pack_weights
from sealign.ckks.plan import DEFAULT_PRECISION, PackingPlan
from sealign.ckks.planner import ProductShape
from sealign.ckks.sanitiser import ZeroPool, sanitise
from sealign.ckks.serialization import load_seeded
from sealign.errors import InvalidInputError, StalePlanError

EncodedBlock: TypeAlias = sealapi.Plaintext | None
"""None stands for a block of zeros, which SEAL refuses to multiply by and which adds nothing."""


@dataclass(frozen=True, eq=False)
class WeightRows:
    """Weights (d, C) whose rows are made when they are needed, so that they need not be in memory.

    Attributes:
        shape: (d, C).
        norms: of the columns, (C,).
        part: returns the rows from one to another.
    """

    shape: tuple[int, int]
    norms: NDArray[np.float64]
    part: Callable[[int, int], NDArray[np.float64]]

    @classmethod
    def of(cls, weight: NDArray[np.float64]) -> WeightRows:
        """Return weights that are in memory."""
        rows, columns = weight.shape
        return cls((rows, columns), np.linalg.norm(weight, axis=0), lambda first, last: weight[first:last])


def product_shape(
    weight: NDArray[np.float64] | WeightRows,
    bias: NDArray[np.float64],
    *,
    rows: int = 1,
    precision: float = DEFAULT_PRECISION,
    row_norm: float = 1.0,
) -> ProductShape:
    """The planner's input for weights (d, C) and bias (C,): their norms, and no more, enter a plan."""
    weight = weight if isinstance(weight, WeightRows) else WeightRows.of(weight)
    columns = weight.norms * row_norm + np.abs(bias)
    tiny = 2.0**-20  # weights of zero are legitimate, a range of zero is not
    return ProductShape(
        rows=rows,
        dimension=weight.shape[0],
        outputs=weight.shape[1],
        frobenius_norm=max(float(np.linalg.norm(weight.norms)), tiny),
        range=max(float(columns.max()), tiny),
        row_norm=row_norm,
        precision=precision,
    )


class Evaluator:
    """Evaluates X·W + bias for encrypted X under one plan. The weights are encoded once, here.

    Args:
        plan: made by the planner for these weights.
        weight: W, shape (d, C).
        bias: shape (C,).

    Raises:
        InvalidInputError: the weights do not have the plan's shape or are not finite.
    """

    def __init__(self, plan: PackingPlan, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
        if weight.shape != (plan.dimension, plan.outputs) or bias.shape != (plan.outputs,):
            raise InvalidInputError(
                f"the plan is for weights of shape ({plan.dimension}, {plan.outputs}), not {weight.shape} with bias "
                f"{bias.shape}; plan again for these weights"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InvalidInputError("the weights or the bias hold NaN or infinite values")
        self.plan = plan
        self._backend = backend(plan.parameters)
        self._bias = encoded_bias(plan, bias)
        self._weights = encoded_weights(plan, weight)

    def evaluate(self, query: EncryptedMatrix, zeros: ZeroPool) -> EncryptedProduct:
        """The sanitised product of a query, for the holder of ``zeros.key``.

        Raises:
            StalePlanError: the query was packed under another plan.
            InvalidInputError: the query is malformed or made for another key.
        """
        plan = self.plan
        _, inner_blocks, _ = plan.counts
        check_query(plan, query, zeros, inner_blocks)
        replies = []
        for start in range(0, len(query.ciphertexts), inner_blocks):
            block_row = [
                load_seeded(sealapi.Ciphertext(), self._backend.context, plan.parameters, seeded, "ciphertext")
                for seeded in query.ciphertexts[start : start + inner_blocks]
            ]
            replies += [
                sanitise(plan, self._summed(block_row, output_block, zeros.take()), bias)
                for output_block, bias in enumerate(self._bias)
            ]
        return EncryptedProduct(plan.id, zeros.key.id, tuple(replies))

    def _summed(
        self, block_row: list[sealapi.Ciphertext], output_block: int, total: sealapi.Ciphertext
    ) -> sealapi.Ciphertext:
        """``total``, an encryption of zero, plus the products along the inner dimension."""
        for ciphertext, weights in zip(block_row, self._weights, strict=True):
            add_product(self._backend, total, ciphertext, weights[output_block])
        return total


def encoded_weights(plan: PackingPlan, weight: NDArray[np.float64]) -> list[list[EncodedBlock]]:
    """Weights of some inner blocks, shape (inner elements, C), as inner blocks × output blocks plaintexts."""
    working = backend(plan.parameters)
    integers = np.rint(weight * 2.0**plan.weight_scale_bits).astype(np.int64)
    return [
        [working.encode(block) if block.any() else None for block in blocks]
        for blocks in pack_weights(integers, plan.block, plan.parameters.poly_degree)
    ]


def encoded_bias(plan: PackingPlan, bias: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bias, shape (C,), as integers at scale Δ, no finer than the plan's bias scale: (output blocks, b, c)."""
    coarse = np.rint(bias * plan.bias_scale) * (plan.output_scale / plan.bias_scale)
    return pack_bias(coarse.astype(np.int64), plan.block)


def add_product(
    working: Backend, total: sealapi.Ciphertext, ciphertext: sealapi.Ciphertext, weights: EncodedBlock
) -> None:
    """Add one block's product to ``total``, in place."""
    if weights is not None:
        product = sealapi.Ciphertext()
        working.evaluator.multiply_plain(ciphertext, weights, product)
        working.evaluator.add_inplace(total, product)


def check_query(plan: PackingPlan, query: EncryptedMatrix, zeros: ZeroPool, inner_blocks: int) -> None:
    """Refuse a query that cannot be evaluated.

    Raises:
        StalePlanError: the query was packed under another plan.
        InvalidInputError: it was made for another key, or does not hold ``inner_blocks`` ciphertexts a row block.
    """
    if query.plan != plan.id:
        raise StalePlanError("the query was packed under another plan; describe the task and encrypt again")
    if query.key_id != zeros.key.id or zeros.key.parameters != plan.parameters:
        raise InvalidInputError(
            f"the query and the public key do not belong together, or the key is not of {plan.parameters.name}; "
            "upload a key for the plan's parameter set"
        )
    row_blocks = plan.counts[0]
    count = len(query.ciphertexts)
    if count % inner_blocks or not 1 <= count // inner_blocks <= row_blocks:
        raise InvalidInputError(
            f"the query holds {count} ciphertexts; the plan asks for {inner_blocks} for each of 1 to {row_blocks} "
            f"blocks of {plan.block.rows} rows"
        )
