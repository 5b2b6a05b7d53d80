"""A client and a silo in one process, for tests of the encrypted product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealign.ckks import (
    DEFAULT_PRECISION,
    Cipher,
    Evaluator,
    PackingPlan,
    ProductShape,
    SecretKey,
    SecurityTable,
    ZeroPool,
    candidates,
    product_shape,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Parties:
    """Both ends of one encrypted product."""

    weight: Floats
    bias: Floats
    shape: ProductShape
    plan: PackingPlan
    cipher: Cipher
    evaluator: Evaluator
    zeros: ZeroPool

    @classmethod
    def meet(
        cls,
        weight: Floats,
        bias: Floats,
        *,
        rows: int = 1,
        precision: float = DEFAULT_PRECISION,
        parameters: str | None = None,
        table: SecurityTable = SecurityTable.CLASSICAL,
    ) -> Parties:
        """Plan (the cheapest, or the cheapest of one parameter set), make a key, encode the weights."""
        shape = product_shape(weight, bias, rows=rows, precision=precision)
        plans = candidates(shape, table)
        plan = next(plan for plan in plans if parameters in (None, plan.parameters.name))
        return cls.under(plan, shape, weight, bias)

    @classmethod
    def under(cls, plan: PackingPlan, shape: ProductShape, weight: Floats, bias: Floats) -> Parties:
        """Both ends under a given plan."""
        key = SecretKey.generate(plan.parameters)
        return cls(
            weight, bias, shape, plan, Cipher(plan, key), Evaluator(plan, weight, bias), ZeroPool(key.public_key)
        )

    def clear(self, X: NDArray[Any]) -> Floats:
        """The product in the clear, shape (n, C)."""
        result: Floats = X.astype(np.float64) @ self.weight + self.bias
        return result

    def encrypted(self, X: NDArray[Any]) -> Floats:
        """The product through ciphertexts, shape (n, C)."""
        reply = self.evaluator.evaluate(self.cipher.encrypt(X), self.zeros)
        return self.cipher.decrypt(reply, X.shape[0])


def unit_rows(generator: np.random.Generator, rows: int, dimension: int) -> Floats:
    """Random rows of norm one, shape (rows, dimension)."""
    X = generator.normal(size=(rows, dimension))
    normalised: Floats = X / np.linalg.norm(X, axis=1, keepdims=True)
    return normalised


def head(generator: np.random.Generator, dimension: int, outputs: int) -> tuple[Floats, Floats]:
    """Weights (d, C) and bias (C,) of the size of a trained linear head."""
    return generator.normal(size=(dimension, outputs)) * 0.3, generator.normal(size=outputs)
