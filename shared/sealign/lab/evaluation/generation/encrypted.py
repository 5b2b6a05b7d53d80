"""A head's logits through the real encrypted path, under the plan that a silo chooses for a generation task."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap
from sealign.ckks import Cipher, ResidueWeights, SecretKey, VocabularyEvaluator, ZeroPool, part_outputs
from sealign.encoders import Embeddings
from sealign.encoders.causal import OutputHead
from sealign.files import row_parts
from sealign.generation.vocabulary import MappedVocabulary, VocabularyHead, plan_vocabulary
from sealign.lab.evaluation.classifier import Matrix
from sealign.lab.evaluation.generation_results import EncryptedPrediction


def encrypted_prediction(
    name: str, head: OutputHead, learned: AffineMap, public: NDArray[np.floating], X: NDArray[np.floating]
) -> EncryptedPrediction:
    """Send states one by one, and compare what is decrypted with what the clear computation gives.

    Args:
        name: of the pair, for errors.
        head: the silo's.
        learned: the map, which the silo applies.
        public: the client's states that the map was learned from, (m, s); no row of X is sent longer than theirs.
        X: the client's states, (n, s).

    Raises:
        NoPlanError: no parameter set can hold the logits.
        StorageError: the encoded weights do not fit the disk.
    """
    row_norm = max(float(np.linalg.norm(part.astype(np.float32), axis=1).max()) for part in row_parts(public))
    own = X.astype(np.float32)
    vocabulary = VocabularyHead.of(head.weight, head.bias)
    mapped = MappedVocabulary.behind(vocabulary, learned, row_norm, public)
    plan = plan_vocabulary(name, mapped)
    key = SecretKey.generate(plan.parameters)
    cipher, zeros = Cipher(plan, key), ZeroPool(key.public_key)
    rows = own * np.minimum(1.0, row_norm / np.linalg.norm(own, axis=1, keepdims=True))
    clear = vocabulary.logits(learned.apply(rows))
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "weights.safetensors"
        ResidueWeights.write(weights, plan, map(mapped.columns, part_outputs(plan)))
        evaluator = VocabularyEvaluator(plan, weights, mapped.bias)
        sent = np.stack([_decrypted(evaluator, cipher, zeros, row) for row in rows])
    return EncryptedPrediction(
        positions=len(rows),
        agreement=float(np.mean(sent.argmax(axis=1) == clear.argmax(axis=1))),
        largest_error=float(np.abs(sent - clear).max()),
        precision=plan.precision,
        parameters=plan.parameters.name,
    )


def _decrypted(evaluator: VocabularyEvaluator, cipher: Cipher, zeros: ZeroPool, row: Embeddings) -> Matrix:
    """Return the logits (V,) of a state (s,) as a client decrypts them, part by part."""
    parts: list[Matrix] = []
    first = 0
    for part in evaluator.evaluate_parts(cipher.encrypt(row[None]), zeros):
        parts.append(cipher.decrypt_part(part, first)[0])
        first += len(part.ciphertexts)
    return np.concatenate(parts)
