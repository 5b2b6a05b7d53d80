"""A head's logits through the real encrypted path, under the plan that a silo chooses for a generation task."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap
from sealign.ckks import (
    LARGEST_MODULUS_BITS,
    Cipher,
    PackingPlan,
    ProductShape,
    ResidueWeights,
    SecretKey,
    VocabularyEvaluator,
    ZeroPool,
    candidates,
    part_outputs,
)
from sealign.encoders import Embeddings
from sealign.encoders.causal import OutputHead
from sealign.evaluation.results import EncryptedPrediction

_PRECISION = 1 / 8
"""Of a logit, as silos promise it by default."""

_CHUNK = 4096  # outputs whose weights are composed at once


class MappedHead:
    """A head behind a map that the silo applies: logits of a client's row x are x·W + b, less their mean.

    Args:
        head: the silo's.
        learned: the map.
    """

    def __init__(self, head: OutputHead, learned: AffineMap) -> None:
        self._head, self._map = head, learned
        self._mean = head.weight.mean(axis=0, dtype=np.float64)  # no distribution depends on the logits' mean
        bias = head.logits(learned.intercept[None])[0].astype(np.float64)
        self.bias: NDArray[np.float64] = bias - bias.mean()

    def columns(self, outputs: slice) -> NDArray[np.float64]:
        """W of some outputs, (s, those)."""
        columns: NDArray[np.float64] = self._map.weight @ (self._head.weight[outputs] - self._mean).T
        return columns

    def logits(self, X: Embeddings) -> NDArray[np.float64]:
        """In the clear, (n, V)."""
        logits = self._head.logits(self._map.apply(X)).astype(np.float64)
        centred: NDArray[np.float64] = logits - logits.mean(axis=1, keepdims=True)
        return centred

    def plan(self, row_norm: float) -> PackingPlan:
        """For one row of at most that norm.

        Raises:
            InvalidInputError: no parameter set can hold the logits.
        """
        outputs, dimension = len(self.bias), len(self._map.weight)
        slices = (slice(start, min(start + _CHUNK, outputs)) for start in range(0, outputs, _CHUNK))
        norms = np.concatenate([np.linalg.norm(self.columns(part), axis=0) for part in slices])
        shape = ProductShape(
            rows=1,
            dimension=dimension,
            outputs=outputs,
            frobenius_norm=float(np.linalg.norm(norms)),
            range=float((norms * row_norm + np.abs(self.bias)).max()),
            row_norm=row_norm,
            precision=_PRECISION,
            column_norm=float(norms.max()),
        )
        return candidates(shape, max_bytes=1 << 40, max_modulus_bits=LARGEST_MODULUS_BITS)[0]


def encrypted_prediction(head: OutputHead, learned: AffineMap, X: Embeddings, row_norm: float) -> EncryptedPrediction:
    """Send states one by one, and compare what is decrypted with what the clear computation gives.

    Args:
        head: the silo's.
        learned: the map.
        X: the client's states, (n, s); longer ones are shortened to ``row_norm``.
        row_norm: largest norm of the states that the map was learned from.

    Raises:
        InvalidInputError: no parameter set can hold the logits.
        StorageError: the encoded weights do not fit the disk.
    """
    mapped = MappedHead(head, learned)
    plan = mapped.plan(row_norm)
    key = SecretKey.generate(plan.parameters)
    cipher, zeros = Cipher(plan, key), ZeroPool(key.public_key)
    rows = X * np.minimum(1.0, row_norm / np.linalg.norm(X, axis=1, keepdims=True))
    agreed, largest = 0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "weights.safetensors"
        ResidueWeights.write(weights, plan, map(mapped.columns, part_outputs(plan)))
        evaluator = VocabularyEvaluator(plan, weights, mapped.bias)
        for row in rows:
            clear, parts, first = mapped.logits(row[None])[0], [], 0
            for part in evaluator.evaluate_parts(cipher.encrypt(row[None]), zeros):
                parts.append(cipher.decrypt_part(part, first)[0])
                first += len(part.ciphertexts)
            logits = np.concatenate(parts)
            agreed += int(logits.argmax() == clear.argmax())
            largest = max(largest, float(np.abs(logits - clear).max()))
    return EncryptedPrediction(
        positions=len(rows),
        agreement=agreed / len(rows),
        largest_error=largest,
        precision=plan.precision,
        parameters=plan.parameters.name,
    )
