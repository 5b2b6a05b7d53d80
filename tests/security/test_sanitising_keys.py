"""A malformed public key: what it can read of the ephemeral secret, and what stands behind that.

Re-randomisation adds (b·u + e₀, a·u + e₁) with a fresh ternary u, where (b, a) is the client's key. The client
cannot choose a, a hash, but it can choose b so that the output coefficients of b·u show coefficients of u: with
b = K, one at each output; with b = K·Σ 3^i·X^(-i), as many ternary digits at each output as fit between the
flood and the modulus. What it reads is bounded by `PackingPlan.bits_per_output` for each output.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor, log

import numpy as np
import pytest

from sealign.ckks import (
    Block,
    PublicKey,
    SecurityTable,
    SeededCiphertext,
    ZeroPool,
    candidates,
    product_shape,
)
from sealign.ckks.messages import ReplyCiphertext
from sealign.ckks.plan import largest_outputs
from sealign.ckks.sanitiser import sanitise
from sealign.ckks.serialization import Words, ciphertext_words
from tests.benchmarks.security_levels import security_bits
from tests.security.attacker import (
    Integers,
    Ring,
    correlation,
    noise_level,
    received_mask,
    received_outputs,
    true_weights,
    weights_in,
)
from tests.unit.ckks.parties import Parties, head


@dataclass(frozen=True)
class Attack:
    """A client whose public key reads ``digits`` ternary digits of u at each output; its query is zero."""

    parties: Parties
    digits: int

    @property
    def ring(self) -> Ring:
        return Ring(self.parties.plan.parameters)

    @property
    def step(self) -> int:
        """K: the value of the last digit."""
        return int(self.ring.parameters.modulus // 3**self.digits)

    def key(self) -> PublicKey:
        """b = K·Σ 3^i·X^(-i), with X^(-i) = -X^(N-i)."""
        b = np.zeros(self.ring.degree, dtype=np.int64)
        b[0] = self.step
        for digit in range(1, self.digits):
            b[-digit] = -self.step * 3**digit
        seeded = SeededCiphertext(b"\2" * 64, self.ring.packed(self.ring.forward(b)))
        return PublicKey(self.parties.plan.parameters, seeded)

    def query(self) -> Words:
        """The query, zero under one seed for all inner blocks: both polynomials in NTT form."""
        return self.ring.expanded(SeededCiphertext(b"\3" * 64, self.ring.packed(self.ring.constant(0))))

    def run(self) -> tuple[list[ReplyCiphertext], list[Integers]]:
        """Replies as `Evaluator.steps` makes them, and for the record the ephemeral secret of each."""
        zeros, evaluator, plan = ZeroPool(self.key()), self.parties.evaluator, self.parties.plan
        replies, secrets = [], []
        block_row = [self.ring.ciphertext(*self.query())] * plan.counts[1]
        for output_block, bias in enumerate(evaluator._bias):
            zero = zeros.take()
            secrets.append(self._ephemeral(ciphertext_words(zero)[0]))
            replies.append(sanitise(plan, evaluator._summed(block_row, output_block, zero), bias))
        return replies, secrets

    def _ephemeral(self, noisy: Words) -> Integers:
        """u from all coefficients of b·u + e₀, which the client never sees: the last digit of each."""
        balanced = np.rint(self.ring.inverse(noisy) / self.step).astype(np.int64)
        return (balanced + 1) % 3 - 1

    def read(self, reply: ReplyCiphertext) -> dict[int, int]:
        """Coefficients of u that the client reads off the outputs of a reply."""
        known = {}
        positions = self.parties.plan.block.output_positions.ravel()
        values = np.rint(received_outputs(self.parties.plan, reply) / self.step).astype(np.int64)
        for position, value in zip(positions.tolist(), values.tolist(), strict=True):
            for index in range(position, position + self.digits):
                digit = (value + 1) % 3 - 1
                value = (value - digit) // 3
                degree = self.ring.degree
                known[index % degree] = digit if index < degree else -digit
        return known

    def remainder(self, reply: ReplyCiphertext, u: Integers) -> Words:
        """The reply's second polynomial less a·u, in NTT form."""
        a = self.ring.expanded(self.key())[1]
        return self.ring.minus(received_mask(self.parties.plan, reply), self.ring.times(a, self.ring.forward(u)))


def most_digits(parties: Parties) -> int:
    """Digits that stand clear of the flood: steps of ten deviations."""
    plan = parties.plan
    noise = plan.error_budget(parties.shape.frobenius_norm).total * plan.output_scale
    return floor(log(plan.parameters.modulus / (10 * noise), 3))


def _parties(rows: int, dimension: int, classes: int) -> Parties:
    weight, _ = head(np.random.default_rng(1), dimension, classes)
    return Parties.meet(weight, np.zeros(classes), rows=rows)


@pytest.fixture(scope="module")
def single() -> Parties:
    return _parties(1, 512, 4)


def test_constant_key_reads_one_coefficient_an_output(single: Parties) -> None:
    attack = Attack(single, digits=1)
    replies, secrets = attack.run()
    known = [attack.read(reply) for reply in replies]
    assert all(secrets[r][i] == digit for r, digits in enumerate(known) for i, digit in digits.items())
    assert sum(map(len, known)) <= single.plan.outputs


def test_best_key_reads_no_more_than_the_stated_capacity(single: Parties) -> None:
    """More than one coefficient an output, at most bits_per_output / log2(3); what stays hidden gives 128 bits."""
    attack = Attack(single, most_digits(single))
    replies, secrets = attack.run()
    known = [attack.read(reply) for reply in replies]
    assert all(secrets[r][i] == digit for r, digits in enumerate(known) for i, digit in digits.items())
    assert 1 < attack.digits <= single.plan.bits_per_output / np.log2(3)
    told = attack.digits * single.plan.block.outputs
    assert max(map(len, known)) == told < single.plan.parameters.spare_coefficients()


@pytest.mark.parametrize(
    ("rows", "dimension", "classes"),
    [(1, 768, 4), (1, 384, 2), (1, 768, 150), (1, 4096, 20), (64, 768, 10), (512, 384, 4), (4096, 768, 4)],
)
@pytest.mark.parametrize("table", SecurityTable)
def test_what_cannot_be_read_stays_above_128_bits(
    rows: int, dimension: int, classes: int, table: SecurityTable
) -> None:
    """Take away every coefficient that could be read: the dimensions that are left give 128 bits by the estimate."""
    weight, _ = head(np.random.default_rng(1), dimension, classes)
    for plan in candidates(product_shape(weight, np.zeros(classes), rows=rows), table):
        readable = plan.block.rows * plan.block.outputs * plan.bits_per_output / np.log2(3)
        left = int(plan.parameters.poly_degree - readable)
        assert security_bits(left, plan.parameters.modulus_bits, table) >= 128


def test_division_after_reading_finds_noise(single: Parties) -> None:
    attack = Attack(single, most_digits(single))
    ring, replies = attack.ring, attack.run()[0]
    mask, guesses = attack.query()[1], []
    for reply in replies:
        u = np.zeros(ring.degree, dtype=np.int64)
        for index, digit in attack.read(reply).items():
            u[index] = digit
        left = ring.inverse(attack.remainder(reply, u)) / ring.parameters.modulus
        assert left.std() == pytest.approx(1 / np.sqrt(12), rel=0.06)  # uniform, as if nothing were known
        assert abs(left.mean()) < 5 / np.sqrt(12 * ring.degree)
        guesses.append(ring.inverse(ring.quotient(attack.remainder(reply, u), mask)))
    guess = weights_in(single.plan, guesses)
    assert correlation(guess, true_weights(single)) < noise_level(guess.size)


def test_division_after_reading_a_bulk_reply_finds_noise() -> None:
    """The planner gives a bulk reply no more outputs than leave enough of u unread."""
    parties = _parties(512, 384, 4)
    attack = Attack(parties, most_digits(parties))
    ring, plan = attack.ring, parties.plan
    replies, secrets = attack.run()
    known = attack.read(replies[0])
    assert all(secrets[0][index] == digit for index, digit in known.items())
    assert len(known) == attack.digits * plan.block.rows * plan.block.outputs < ring.degree
    u = np.zeros(ring.degree, dtype=np.int64)
    u[list(known)] = list(known.values())
    left = ring.inverse(attack.remainder(replies[0], u)) / ring.parameters.modulus
    assert left.std() == pytest.approx(1 / np.sqrt(12), rel=0.06)  # uniform, as if nothing were known


def test_a_bulk_block_without_the_planners_limit_would_give_u_away() -> None:
    """Why the limit exists: with as many outputs as fit, a malformed key reads all of u, exactly."""
    parties = _parties(512, 384, 4)
    plans = candidates(parties.shape)
    unlimited = replace(next(p for p in plans if p.parameters.name == "ckks-2048-36"), block=Block(512, 4, 1))
    assert unlimited.block.rows > largest_outputs(unlimited)
    parties = Parties.under(unlimited, parties.shape, parties.weight, parties.bias)
    attack = Attack(parties, most_digits(parties))
    replies, secrets = attack.run()
    known = attack.read(replies[0])
    assert len(known) == attack.ring.degree
    assert all(secrets[0][index] == digit for index, digit in known.items())
