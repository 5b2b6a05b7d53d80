"""A malicious silo reads the client's key through published labels: without a limit all of it, in a life too little.

A crafted reply has a single power of X, times A, for its second polynomial, so that an output decrypts to A times a
coefficient of the key. Against a constant in another reply ciphertext the label tells whether it is 1 or -1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log2

import numpy as np
import pytest

from sealign.ckks import Block, EncryptedProduct, ReplyCiphertext, SecurityTable, replies_per_key
from sealign.ckks.serialization import pack_words
from sealign.errors import DecryptionError
from tests.benchmarks.security_levels import security_bits
from tests.security.attacker import secret_coefficients
from tests.unit.ckks.parties import Parties, head

LABELS = 4


@dataclass
class Oracle:
    """A client that publishes labels, and a silo. Logits 0 and 1 are in one ciphertext, 2 and 3 in another."""

    parties: Parties
    replies: int = 0

    def _crafted(self, first: tuple[float, float], power: int, amplitude: float) -> ReplyCiphertext:
        """Output coefficients near ``first``, plus amplitude·X^power times the key."""
        plan = self.parties.plan
        q, degree = plan.parameters.modulus, plan.parameters.poly_degree
        outputs = np.rint(np.array(first) * plan.output_scale).astype(np.int64) % q
        mask = np.zeros(degree, dtype=np.int64)
        mask[power % degree] = round(amplitude * plan.output_scale) * (1 if power >= 0 else -1)

        def sent(values: np.typing.NDArray[np.int64]) -> bytes:
            return pack_words((values % q).astype(np.uint64) >> np.uint64(plan.dropped_bits), plan.reply_bits)

        return ReplyCiphertext(sent(outputs), sent(mask))

    def label(self, coefficient: int, sign: float) -> int:
        """The label that the client publishes: 0 where ``sign`` times the coefficient of the key is 1, else 2."""
        plan = self.parties.plan
        position = int(plan.block.output_positions.ravel()[0])
        query, bound = self.parties.cipher.encrypt(np.zeros((1, plan.dimension))), plan.range / 4
        crafted = self._crafted((0.0, -2 * bound), position - coefficient, sign * bound)
        constant = self._crafted((bound / 2, -2 * bound), 0, 2.0 ** (plan.dropped_bits + 1) / plan.output_scale)
        reply = EncryptedProduct(query.plan, query.key_id, (crafted, constant))
        self.replies += 1
        return int(self.parties.cipher.decrypt(reply, 1)[0].argmax())

    def coefficient(self, index: int) -> int:
        """A coefficient of the key from at most two labels."""
        if self.label(index, 1.0) == 0:
            return 1
        return -1 if self.label(index, -1.0) == 0 else 0


@pytest.fixture
def oracle() -> Oracle:
    met = Parties.meet(*head(np.random.default_rng(1), 768, LABELS))
    two_replies = replace(met.plan, block=Block(1, 768, LABELS // 2))
    return Oracle(Parties.under(two_replies, met.shape, met.weight, met.bias))


def test_labels_without_a_limit_give_the_key_away(oracle: Oracle) -> None:
    """Below the meter: any coefficient, in two labels at most. All 2,048 would take some 3,400."""
    secret = secret_coefficients(oracle.parties.cipher.key)
    indices = np.random.default_rng(2).choice(len(secret), 200, replace=False)
    assert [oracle.coefficient(int(index)) for index in indices] == secret[indices].tolist()
    assert oracle.replies <= 400


def test_within_its_life_a_key_stays_above_128_bits(oracle: Oracle) -> None:
    """The session spends before it asks: the silo gets as many labels as the lifetime grants, and then another key."""
    key, parameters = oracle.parties.cipher.key, oracle.parties.plan.parameters
    secret, known = secret_coefficients(key), {}
    for index in range(parameters.poly_degree):
        if not (key.spend(rows=1, labels=LABELS) and key.spend(rows=1, labels=LABELS)):
            break
        known[index] = oracle.coefficient(index)
    assert all(secret[index] == value for index, value in known.items())
    assert key.exhausted
    assert 20 < len(known) <= parameters.spare_coefficients()
    told = replies_per_key(parameters, LABELS) * log2(LABELS) / log2(3)  # a cleverer silo: every bit counts
    for hidden in (parameters.poly_degree - len(known), int(parameters.poly_degree - told)):
        assert security_bits(hidden, parameters.modulus_bits, SecurityTable.CLASSICAL) >= 128


def test_a_failure_ends_the_oracle_at_once(oracle: Oracle) -> None:
    """Leaving the range, or not, is an oracle too: one answer, then the key is dead for every reply."""
    plan = oracle.parties.plan
    query = oracle.parties.cipher.encrypt(np.zeros((1, plan.dimension)))
    far = oracle._crafted((plan.range * 1.5, 0.0), 0, plan.range / 8)
    good = oracle.parties.evaluator.evaluate(query, oracle.parties.zeros)
    with pytest.raises(DecryptionError, match="outside the promised range"):
        oracle.parties.cipher.decrypt(EncryptedProduct(query.plan, query.key_id, (far, far)), 1)
    assert oracle.parties.cipher.key.exhausted
    with pytest.raises(DecryptionError, match="Generate a new key"):
        oracle.parties.cipher.decrypt(good, 1)
    with pytest.raises(DecryptionError, match="Generate a new key"):
        oracle.label(0, 1.0)
