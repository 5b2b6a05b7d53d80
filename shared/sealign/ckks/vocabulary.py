"""The encrypted product for very many outputs, such as the logits of a vocabulary: part by part, always sanitised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from sealign.ckks.backend import backend
from sealign.ckks.evaluator import check_query, encoded_bias
from sealign.ckks.messages import EncryptedMatrix, EncryptedProduct
from sealign.ckks.plan import PackingPlan
from sealign.ckks.residues import ResidueWeights, part_blocks
from sealign.ckks.sanitiser import ZeroPool, sanitise
from sealign.ckks.serialization import ciphertext_from_residues, ciphertext_words, load_seeded
from sealign.errors import InvalidInputError


class VocabularyEvaluator:
    """Evaluates X·W + bias for encrypted X of one row, like `Evaluator`, with the weights in a shared file.

    Args:
        plan: made by the planner for these weights, for one row.
        weights: a file that :meth:`ResidueWeights.write` wrote.
        bias: shape (C,).

    Raises:
        StorageError: the file is missing or was not written whole for this plan.
        InvalidInputError: the bias does not have the plan's shape or is not finite.
    """

    def __init__(self, plan: PackingPlan, weights: Path, bias: NDArray[np.float64]) -> None:
        if bias.shape != (plan.outputs,) or not np.isfinite(bias).all():
            raise InvalidInputError(f"the plan asks for a finite bias of shape ({plan.outputs},), not {bias.shape}")
        self.plan = plan
        self._backend = backend(plan.parameters)
        self._bias = encoded_bias(plan, bias)
        self._weights = ResidueWeights(plan, weights)

    def evaluate_parts(self, query: EncryptedMatrix, zeros: ZeroPool) -> Iterator[EncryptedProduct]:
        """The sanitised product of a query, for the holder of ``zeros.key``: consecutive output blocks.

        Raises:
            StalePlanError: the query was packed under another plan.
            InvalidInputError: the query is malformed or made for another key.
        """
        plan, context = self.plan, self._backend.context
        check_query(plan, query, zeros, plan.counts[1])
        words = [
            ciphertext_words(load_seeded(sealapi.Ciphertext(), context, plan.parameters, seeded, "ciphertext"))
            for seeded in query.ciphertexts
        ]
        digits = self._weights.digits(np.array(words))
        for part, blocks in enumerate(part_blocks(plan)):
            sums = self._weights.product(digits, part)
            replies = []
            for block, residues in zip(blocks, sums, strict=True):
                total = zeros.take()
                self._backend.evaluator.add_inplace(total, ciphertext_from_residues(context, residues))
                replies.append(sanitise(plan, total, self._bias[block]))
            yield EncryptedProduct(plan.id, zeros.key.id, tuple(replies))
