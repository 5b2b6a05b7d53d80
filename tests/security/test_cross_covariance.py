"""A malicious client against the silo's embeddings: the parts of a cross-covariance are sanitised replies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from tenseal import sealapi

from sealign.ckks import Cipher, EncryptedProduct, PackingPlan, SecretKey, StreamedProduct, ZeroPool, candidates
from sealign.ckks import product_shape as shape_of
from sealign.ckks.backend import backend
from sealign.ckks.evaluator import encoded_weights
from sealign.ckks.plan import largest_outputs
from sealign.ckks.serialization import ciphertext_words, load_seeded, packed_size
from tests.security.attacker import Ring, correlation, noise_level, received_mask
from tests.unit.ckks.parties import Floats

ROWS, TEXTS, OUTPUTS = 24, 2000, 16


@dataclass(frozen=True)
class Attack:
    """A client that encrypts what it likes in place of its embeddings."""

    weight: Floats
    plan: PackingPlan
    cipher: Cipher

    @classmethod
    def prepare(cls) -> Attack:
        weight = np.random.default_rng(0).normal(size=(TEXTS, OUTPUTS))
        weight = (weight / np.linalg.norm(weight, axis=1, keepdims=True)).astype(np.float64)
        shape = shape_of(weight, np.zeros(OUTPUTS), rows=ROWS, precision=2.0**-12)
        plan = candidates(shape, streamed=True)[0]
        return cls(weight, plan, Cipher(plan, SecretKey.generate(plan.parameters)))

    def parts(self, X: Floats) -> list[EncryptedProduct]:
        product = StreamedProduct(self.plan, self.weight, ZeroPool(self.cipher.key.public_key))
        for block in self.cipher.encrypt_blocks(X):
            product.add(block)
        return list(product.finish())


@pytest.fixture(scope="module")
def attack() -> Attack:
    return Attack.prepare()


def test_a_part_holds_the_outputs_and_one_mask_for_each(attack: Attack) -> None:
    """No coefficient that carries partial sums leaves, whatever was asked."""
    plan = attack.plan
    sizes = {
        (len(reply.outputs), len(reply.mask))
        for part in attack.parts(np.eye(ROWS, TEXTS))
        for reply in part.ciphertexts
    }
    outputs = packed_size(plan.block.rows * plan.block.outputs, plan.reply_bits)
    assert sizes == {(outputs, packed_size(plan.parameters.poly_degree, plan.reply_bits))}


def test_division_finds_noise(attack: Attack) -> None:
    """The reply's second polynomial over the query's would be the weights, were the sum not an encryption of zero."""
    plan, ring = attack.plan, Ring(attack.plan.parameters)
    X = np.zeros((ROWS, TEXTS))
    X[:, : plan.block.inner] = 1 / np.sqrt(plan.block.inner)  # the other blocks add encryptions of nothing
    blocks = list(attack.cipher.encrypt_blocks(X))
    product = StreamedProduct(plan, attack.weight, ZeroPool(attack.cipher.key.public_key))
    for block in blocks:
        product.add(block)
    part = next(product.finish())
    mask = ring.expanded(blocks[0].ciphertexts[0])[1]
    guess = ring.inverse(ring.quotient(received_mask(plan, part.ciphertexts[0]), mask))
    working = backend(plan.parameters)
    (weights,) = encoded_weights(plan, attack.weight[: plan.block.inner])
    assert weights[0] is not None
    truth = np.rint(working.decode(weights[0]))
    bare = load_seeded(sealapi.Ciphertext(), working.context, plan.parameters, blocks[0].ciphertexts[0], "ciphertext")
    working.evaluator.multiply_plain_inplace(bare, weights[0])
    assert np.array_equal(ring.inverse(ring.quotient(ciphertext_words(bare)[1], mask)), truth)
    assert correlation(guess.astype(np.float64), truth) < noise_level(guess.size)


def test_the_same_question_has_another_answer_each_time(attack: Attack) -> None:
    X = np.eye(ROWS, TEXTS)
    first, second = attack.parts(X)[0], attack.parts(X)[0]
    assert first.ciphertexts[0].mask != second.ciphertexts[0].mask
    errors = attack.cipher.decrypt(first, attack.plan.block.rows) - attack.weight[: attack.plan.block.rows]
    assert errors.std() >= 0.9 * attack.plan.flood_std


def test_a_malformed_key_cannot_strip_the_mask(attack: Attack) -> None:
    """The plan for a stream is held to the same number of outputs in a reply as any other."""
    assert attack.plan.block.rows * attack.plan.block.outputs <= largest_outputs(attack.plan)
