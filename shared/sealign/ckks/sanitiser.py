"""What makes a reply safe to send: nothing about the weights leaves but the promised outputs.

A product of a ciphertext with plaintext weights hides nothing about the weights: its two polynomials can
be divided by the query's, and its unused coefficients hold partial sums. Every reply therefore

1. starts from a fresh encryption of zero under the client's public key, so that the second polynomial is
   a new RLWE sample and tells nothing (the key's own second polynomial comes from a seed);
2. keeps of the first polynomial only the coefficients that carry outputs;
3. gets Gaussian flood noise at the promised precision on each of them, together with the bias;
4. drops the low bits that the precision does not need (modulus switching by rounding).
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from sealign.ckks.backend import backend
from sealign.ckks.keys import PublicKey
from sealign.ckks.messages import ReplyCiphertext
from sealign.ckks.plan import PackingPlan
from sealign.ckks.randomness import gaussian
from sealign.ckks.serialization import Words, ciphertext_words, pack_words


class ZeroPool:
    """Encryptions of zero under one client's public key, some made ahead of time, each used once.

    Args:
        key: the client's public key.
        capacity: how many to keep ready (each 16·N bytes).

    Raises:
        InvalidInputError: the key is not in seeded form, or not of its parameter set.
    """

    def __init__(self, key: PublicKey, capacity: int = 8) -> None:
        self.key = key
        self._encryptor = sealapi.Encryptor(backend(key.parameters).context, key.seal_key())
        self._capacity = capacity
        self._ready: deque[sealapi.Ciphertext] = deque()

    @property
    def ready(self) -> int:
        """Number of encryptions made ahead."""
        return len(self._ready)

    @property
    def is_full(self) -> bool:
        """Whether there is nothing to prepare."""
        return len(self._ready) >= self._capacity

    def prepare(self) -> None:
        """Make one encryption of zero ahead of time, unless the pool is full."""
        if not self.is_full:
            self._ready.append(self._fresh())

    def take(self) -> sealapi.Ciphertext:
        """An encryption of zero in NTT form that nobody has had before."""
        try:
            return self._ready.popleft()
        except IndexError:
            return self._fresh()

    def _fresh(self) -> sealapi.Ciphertext:
        zero = sealapi.Ciphertext()
        self._encryptor.encrypt_zero(zero)
        return zero


def flood_noise(count: int, std: float) -> NDArray[np.int64]:
    """Gaussian integers from the operating system's generator, shape (count,), standard deviation ``std``."""
    return np.rint(gaussian(count, std)).astype(np.int64)


def sanitise(plan: PackingPlan, rerandomised: sealapi.Ciphertext, bias: NDArray[np.int64]) -> ReplyCiphertext:
    """The reply that may leave, from a product that was summed onto an encryption of zero.

    Args:
        plan: the plan of the product.
        rerandomised: encryption of zero plus products, in NTT form; consumed.
        bias: integers at scale Δ for the output coefficients, shape (b, c).
    """
    backend(plan.parameters).evaluator.transform_from_ntt_inplace(rerandomised)
    first, second = ciphertext_words(rerandomised)
    outputs = first[plan.block.output_positions.ravel()].astype(np.int64)
    flood = flood_noise(outputs.size, plan.flood_std * plan.output_scale)
    masked = (outputs + bias.ravel() + flood) % plan.parameters.modulus
    return ReplyCiphertext(_truncated(plan, masked.astype(np.uint64)), _truncated(plan, second))


def _truncated(plan: PackingPlan, words: Words) -> bytes:
    return pack_words(words >> np.uint64(plan.dropped_bits), plan.reply_bits)
