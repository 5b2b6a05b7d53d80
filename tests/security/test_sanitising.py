"""A malicious client against the silo's weights: each attack works on a bare product and fails on a reply.

Shapes are those of a single query to a head of four classes on 768 dimensions, under the plan that is served.
"""

from __future__ import annotations

import numpy as np
import pytest
from tenseal import sealapi

from sealign.ckks import EncryptedMatrix, PublicKey, SeededCiphertext, ZeroPool
from sealign.ckks.backend import backend
from sealign.ckks.sanitiser import flood_noise
from sealign.ckks.serialization import ciphertext_words, packed_size
from sealign.errors import InvalidInputError
from tests.security.attacker import (
    Ring,
    correlation,
    loaded,
    noise_level,
    received_mask,
    received_outputs,
    true_weights,
    unrounded,
    unsanitised,
    weights_in,
    with_ciphertexts,
)
from tests.unit.ckks.parties import Parties, head, unit_rows

DIMENSION, CLASSES = 512, 4


@pytest.fixture(scope="module")
def parties() -> Parties:
    parties = Parties.meet(*head(np.random.default_rng(1), DIMENSION, CLASSES))
    assert parties.plan.counts[:2] == (1, 1)
    return parties


@pytest.fixture
def ring(parties: Parties) -> Ring:
    return Ring(parties.plan.parameters)


class TestDivision:
    """The reply's second polynomial is the query's times the weights: divide."""

    def test_recovers_every_weight_from_a_bare_product(self, parties: Parties, ring: Ring) -> None:
        query = parties.cipher.encrypt(unit_rows(np.random.default_rng(2), 1, DIMENSION))
        mask = ring.expanded(query.ciphertexts[0])[1]
        products = unsanitised(parties, loaded(parties, query))
        quotients = [ring.inverse(ring.quotient(ciphertext_words(product)[1], mask)) for product in products]
        assert np.array_equal(weights_in(parties.plan, quotients), true_weights(parties))

    def test_finds_noise_in_a_reply(self, parties: Parties, ring: Ring) -> None:
        query = parties.cipher.encrypt(unit_rows(np.random.default_rng(2), 1, DIMENSION))
        mask = ring.expanded(query.ciphertexts[0])[1]
        reply = parties.evaluator.evaluate(query, parties.zeros)
        masks = [received_mask(parties.plan, ciphertext) for ciphertext in reply.ciphertexts]
        guess = weights_in(parties.plan, [ring.inverse(ring.quotient(word, mask)) for word in masks])
        assert correlation(guess, true_weights(parties)) < noise_level(guess.size)

    def test_finds_noise_even_without_truncation(self, parties: Parties, ring: Ring) -> None:
        """The fresh encryption of zero protects by itself, dropped bits or not."""
        query = parties.cipher.encrypt(unit_rows(np.random.default_rng(2), 1, DIMENSION))
        mask = ring.expanded(query.ciphertexts[0])[1]
        block_row = loaded(parties, query)
        summed = [
            parties.evaluator._summed(block_row, output_block, parties.zeros.take())
            for output_block in range(parties.plan.counts[2])
        ]
        quotients = [ring.inverse(ring.quotient(ciphertext_words(total)[1], mask)) for total in summed]
        guess = weights_in(parties.plan, quotients)
        assert correlation(guess, true_weights(parties)) < noise_level(guess.size)


class TestImpulse:
    """A query of one 1 shifts the weight polynomial, so the unused coefficients show the other weights."""

    def test_reads_every_weight_off_a_bare_product(self, parties: Parties) -> None:
        plan = parties.plan
        query = parties.cipher.encrypt(np.eye(1, DIMENSION, DIMENSION - 1))  # coefficient k-1-j = 0: no shift
        working = backend(plan.parameters)
        products = unsanitised(parties, loaded(parties, query))
        decrypted = [working.decode(parties.cipher.key.decrypt(product)) for product in products]
        guess = weights_in(plan, [np.rint(values).astype(np.int64) for values in decrypted]) / plan.output_scale
        assert np.abs(guess - parties.weight).max() < parties.plan.precision

    def test_a_reply_holds_the_outputs_only(self, parties: Parties) -> None:
        plan = parties.plan
        query = parties.cipher.encrypt(np.eye(1, DIMENSION, DIMENSION - 1))
        reply = parties.evaluator.evaluate(query, parties.zeros)
        sizes = {(len(ciphertext.outputs), len(ciphertext.mask)) for ciphertext in reply.ciphertexts}
        assert sizes == {(packed_size(plan.block.outputs, plan.reply_bits), packed_size(2048, plan.reply_bits))}
        row = parties.cipher.decrypt(reply, 1)
        assert row.shape == (1, CLASSES)
        assert np.abs(row - parties.clear(np.eye(1, DIMENSION, DIMENSION - 1))).max() <= plan.precision

    def test_the_rest_of_a_reply_is_noise(self, parties: Parties, ring: Ring) -> None:
        """Decrypt all coefficients anyway, with zeros where the silo sent nothing."""
        plan = parties.plan
        query = parties.cipher.encrypt(np.eye(1, DIMENSION, DIMENSION - 1))
        reply = parties.evaluator.evaluate(query, parties.zeros)
        decrypted = []
        for ciphertext in reply.ciphertexts:
            first = np.zeros(ring.degree, dtype=np.int64)
            first[plan.block.output_positions.ravel()] = received_outputs(plan, ciphertext)
            whole = ring.ciphertext(ring.forward(first), received_mask(plan, ciphertext))
            values = backend(plan.parameters).decode(parties.cipher.key.decrypt(whole))
            decrypted.append(np.rint(values).astype(np.int64))
        others = slice(0, DIMENSION - 1)  # the last row is the output
        guess, truth = weights_in(plan, decrypted)[others], true_weights(parties)[others]
        assert correlation(guess, truth) < noise_level(guess.size)


class TestZeroKey:
    """Without a hash behind it, a key of zeros makes the encryption of zero no mask at all."""

    STEP = 1 << 20

    def _attacked(self, parties: Parties, ring: Ring, zeros: ZeroPool) -> tuple[int, float]:
        """Wrong weights, and correlation, when the client may choose the query's second polynomial (2^20)."""
        chosen = ring.ciphertext(ring.constant(0), ring.constant(self.STEP))
        guesses = []
        for output_block in range(parties.plan.counts[2]):
            total = parties.evaluator._summed([chosen], output_block, zeros.take())
            guesses.append(np.rint(ring.inverse(ciphertext_words(total)[1]) / self.STEP).astype(np.int64))
        guess, truth = weights_in(parties.plan, guesses), true_weights(parties)
        return int((guess != truth).sum()), correlation(guess, truth)

    def test_two_free_polynomials_would_give_every_weight_away(self, parties: Parties, ring: Ring) -> None:
        nothing = ring.constant(0)
        zeros = ZeroPool(parties.zeros.key)
        zeros._encryptor = sealapi.Encryptor(backend(ring.parameters).context, ring.public_key(nothing, nothing))
        wrong, _ = self._attacked(parties, ring, zeros)
        assert wrong == 0

    def test_seeded_zero_key_still_masks(self, parties: Parties, ring: Ring) -> None:
        seeded = SeededCiphertext(bytes(64), ring.packed(ring.constant(0)))
        zeros = ZeroPool(PublicKey(parties.plan.parameters, seeded))
        wrong, found = self._attacked(parties, ring, zeros)
        assert wrong > 0.99 * DIMENSION * CLASSES
        assert found < noise_level(DIMENSION * CLASSES)

    def test_evaluator_under_a_seeded_zero_key(self, parties: Parties, ring: Ring) -> None:
        """The public path, seeded key of zeros and seeded query of zeros: division finds noise."""
        nothing = ring.packed(ring.constant(0))
        key = PublicKey(parties.plan.parameters, SeededCiphertext(bytes(64), nothing))
        query = SeededCiphertext(b"\1" * 64, nothing)
        request = EncryptedMatrix(parties.plan.id, key.id, (query,))
        reply = parties.evaluator.evaluate(request, ZeroPool(key))
        mask = ring.expanded(query)[1]
        masks = [received_mask(parties.plan, ciphertext) for ciphertext in reply.ciphertexts]
        guess = weights_in(parties.plan, [ring.inverse(ring.quotient(word, mask)) for word in masks])
        assert correlation(guess, true_weights(parties)) < noise_level(guess.size)


class TestNonSeeded:
    """A second polynomial of the client's choice cannot be expressed, in a key or in a query."""

    @pytest.mark.parametrize("form", ["both in words", "second for seed", "no seed", "longer seed"])
    def test_is_refused(self, parties: Parties, ring: Ring, form: str) -> None:
        nothing, chosen = ring.packed(ring.constant(0)), ring.packed(ring.constant(1))
        seeded = {
            "both in words": SeededCiphertext(bytes(64), nothing + chosen),
            "second for seed": SeededCiphertext(chosen, nothing),
            "no seed": SeededCiphertext(b"", nothing + chosen),
            "longer seed": SeededCiphertext(bytes(128), nothing),
        }[form]
        with pytest.raises(InvalidInputError, match=r"public key .*not in seeded form"):
            ZeroPool(PublicKey(parties.plan.parameters, seeded))
        query = parties.cipher.encrypt(np.zeros((1, DIMENSION)))
        with pytest.raises(InvalidInputError, match=r"ciphertext .*not in seeded form"):
            parties.evaluator.evaluate(with_ciphertexts(query, seeded), parties.zeros)

    def test_every_seed_gives_a_polynomial_that_looks_uniform(self, ring: Ring) -> None:
        """Seeds that a client might hope to be weak: none gives a small or sparse second polynomial."""
        nothing = ring.packed(ring.constant(0))
        for seed in (bytes(64), b"\xff" * 64, b"\1" + bytes(63), b"\0\xff" * 32):
            second = ring.inverse(ring.expanded(SeededCiphertext(seed, nothing))[1]) / ring.parameters.modulus
            assert np.unique(second).size > 0.999 * ring.degree
            assert abs(second.mean()) < 5 / np.sqrt(12 * ring.degree)
            assert second.std() == pytest.approx(1 / np.sqrt(12), rel=0.06)


class TestRepetition:
    """The same query again and again."""

    REPEATS, GROUP = 800, 16

    def test_averaging_gains_a_square_root_and_no_more(self, parties: Parties) -> None:
        """The leak inherent in returning logits: each repetition costs one query. A malicious client does not round."""
        X = unit_rows(np.random.default_rng(3), 1, DIMENSION)
        query = parties.cipher.encrypt(X)
        answers = [
            unrounded(parties.cipher, parties.evaluator.evaluate(query, parties.zeros)) for _ in range(self.REPEATS)
        ]
        error = np.array(answers) - parties.clear(X)
        flood = parties.plan.flood_std
        assert error.std() >= 0.95 * flood
        fresh = error - error.mean(axis=0)  # what does not repeat: flood, truncation, re-randomisation
        budget = parties.plan.error_budget(parties.shape.frobenius_norm)
        predicted = np.sqrt(flood**2 + budget.truncation**2 + budget.rerandomisation**2)
        assert fresh.std() == pytest.approx(predicted, rel=0.1)
        means = fresh.reshape(-1, self.GROUP, CLASSES).mean(axis=1)
        assert means.std() == pytest.approx(fresh.std() / np.sqrt(self.GROUP), rel=0.25)
        assert abs(np.corrcoef(fresh[:-1, 0], fresh[1:, 0])[0, 1]) < noise_level(self.REPEATS - 1)

    def test_flood_is_gaussian_of_the_promised_width(self) -> None:
        noise = flood_noise(20_000, 1e6) / 1e6
        assert noise.std() == pytest.approx(1, rel=0.04)
        assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
        for deviations, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
            assert (np.abs(noise) < deviations).mean() == pytest.approx(share, abs=0.017)

    def test_no_encryption_of_zero_serves_twice(self, parties: Parties, ring: Ring) -> None:
        """Take the true products off the masks of replies, over a full pool and beyond: all that is left differs."""
        plan = parties.plan
        zeros = ZeroPool(parties.zeros.key, capacity=6)
        for _ in range(20):
            zeros.prepare()
        assert len(zeros._ready) == 6
        query = parties.cipher.encrypt(unit_rows(np.random.default_rng(4), 1, DIMENSION))
        products = [ciphertext_words(product)[1] for product in unsanitised(parties, loaded(parties, query))]
        replies = [parties.evaluator.evaluate(query, zeros) for _ in range(6)]
        assert len({c.mask for reply in replies for c in reply.ciphertexts}) == 6 * len(products)
        assert len({c.outputs for reply in replies for c in reply.ciphertexts}) == 6 * len(products)
        left = [
            ring.inverse(ring.minus(received_mask(plan, ciphertext), product))
            for reply in replies
            for ciphertext, product in zip(reply.ciphertexts, products, strict=True)
        ]
        for index, one in enumerate(left):
            for other in left[:index]:  # twice the same zero would differ by the dropped bits at most
                assert np.abs(one - other).max() > 2 ** (plan.dropped_bits + 4)
