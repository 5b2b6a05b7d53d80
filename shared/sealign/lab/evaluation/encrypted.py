"""A classifier's outputs through the real encrypted path: encrypt, multiply, sanitise, decrypt."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from sealign.ckks import Cipher, Evaluator, ParameterSet, SecretKey, ZeroPool
from sealign.lab.evaluation.classifier import Classifier, Matrix


def encrypted_outputs(classifier: Classifier, X: ArrayLike) -> Matrix:
    """What :meth:`Classifier.outputs` gives, as a client decrypts it from a silo's sanitised replies.

    Raises:
        InvalidInputError: no parameter set can hold the outputs.
    """
    rows = classifier.rows(X)
    plan = classifier.plan(len(rows))
    key, zeros = _parties(plan.parameters)
    cipher, evaluator = Cipher(plan, key), Evaluator(plan, classifier.weight, classifier.bias)
    batches = [rows[start : start + plan.rows] for start in range(0, len(rows), plan.rows)]
    replies = [cipher.decrypt(evaluator.evaluate(cipher.encrypt(batch), zeros), len(batch)) for batch in batches]
    return np.vstack(replies)


@lru_cache(maxsize=8)
def _parties(parameters: ParameterSet) -> tuple[SecretKey, ZeroPool]:
    """A client's key, and what the silo holds for it."""
    key = SecretKey.generate(parameters)
    return key, ZeroPool(key.public_key)
