"""The silo's half of an encrypted product that is too large for one message.

Rows arrive one inner block at a time, weights are encoded when their block arrives, and what is held
meanwhile is one ciphertext for each reply: memory does not depend on the inner dimension.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from sealign.ckks.backend import backend
from sealign.ckks.evaluator import WeightRows, add_product, check_query, encoded_weights
from sealign.ckks.messages import EncryptedMatrix, EncryptedProduct
from sealign.ckks.packing import pack_bias
from sealign.ckks.plan import PackingPlan
from sealign.ckks.sanitiser import ZeroPool, sanitise
from sealign.ckks.serialization import load_seeded
from sealign.errors import InvalidInputError


class StreamedProduct:
    """X·W for encrypted X, summed one inner block at a time; the sanitised product comes at the end.

    Args:
        plan: made by the planner, with ``streamed``, for X and W.
        weight: W, shape (d, C), whose columns times the plan's row norm are within its range; perhaps not in memory.
        zeros: encryptions of zero under the client's key; every sum starts as one.

    Raises:
        InvalidInputError: the weights do not have the plan's shape, are not finite or exceed its range, or the key is
            of another set.
    """

    def __init__(self, plan: PackingPlan, weight: NDArray[np.float64] | WeightRows, zeros: ZeroPool) -> None:
        weight = weight if isinstance(weight, WeightRows) else WeightRows.of(weight)
        if weight.shape != (plan.dimension, plan.outputs) or not np.isfinite(weight.norms).all():
            raise InvalidInputError(
                f"the plan is for finite weights of shape ({plan.dimension}, {plan.outputs}), not for these of shape "
                f"{weight.shape}"
            )
        if weight.norms.max() * plan.row_norm > plan.range:
            raise InvalidInputError(
                "the product could overflow the range that the plan promises: the weights have changed since it was "
                "made; plan again"
            )
        if zeros.key.parameters != plan.parameters:
            raise InvalidInputError(f"the key is not of {plan.parameters.name}, which the plan asks for")
        self.plan = plan
        self.inner_blocks_done = 0
        self._weight = weight
        self._zeros = zeros
        self._backend = backend(plan.parameters)
        row_blocks, _, output_blocks = plan.counts
        self._sums = [[zeros.take() for _ in range(output_blocks)] for _ in range(row_blocks)]

    @property
    def is_complete(self) -> bool:
        """Whether every inner block has been added."""
        return self.inner_blocks_done == self.plan.counts[1]

    def add(self, rows: EncryptedMatrix) -> None:
        """Multiply and add the next inner block: one ciphertext for each row block.

        Raises:
            StalePlanError: the block was packed under another plan.
            InvalidInputError: a malformed block, another number of ciphertexts, or more blocks than the plan has;
                nothing was added.
        """
        plan = self.plan
        if self.is_complete:
            raise InvalidInputError(f"the product is complete after {plan.counts[1]} inner blocks; this is one more")
        check_query(plan, rows, self._zeros, inner_blocks=1)
        if len(rows.ciphertexts) != len(self._sums):
            raise InvalidInputError(
                f"inner block {self.inner_blocks_done} holds {len(rows.ciphertexts)} ciphertexts; the plan asks for "
                f"{len(self._sums)}, one for each row block"
            )
        ciphertexts = [
            load_seeded(sealapi.Ciphertext(), self._backend.context, plan.parameters, seeded, "ciphertext")
            for seeded in rows.ciphertexts
        ]
        start = self.inner_blocks_done * plan.block.inner
        (weights,) = encoded_weights(plan, self._weight.part(start, min(start + plan.block.inner, plan.dimension)))
        for ciphertext, sums in zip(ciphertexts, self._sums, strict=True):
            for total, encoded in zip(sums, weights, strict=True):
                add_product(self._backend, total, ciphertext, encoded)
        self.inner_blocks_done += 1

    def finish(self) -> Iterator[EncryptedProduct]:
        """The sanitised product, one part for each row block, each a reply to that block's rows alone. Once only.

        Raises:
            InvalidInputError: inner blocks are missing, or the product was finished before.
        """
        plan = self.plan
        if not self.is_complete or not self._sums:
            raise InvalidInputError(
                f"{self.inner_blocks_done} of {plan.counts[1]} inner blocks were added, and a product is finished once"
            )
        finished, self._sums = self._sums, []
        bias = pack_bias(np.zeros(plan.outputs, dtype=np.int64), plan.block)
        while finished:
            sums = finished.pop(0)
            replies = tuple(sanitise(plan, total, zero) for total, zero in zip(sums, bias, strict=True))
            yield EncryptedProduct(plan.id, self._zeros.key.id, replies)
