"""A malicious client against a language-model head: attacks that work on bare sums fail on replies for a vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sealign.ckks import PublicKey, SeededCiphertext, ZeroPool
from sealign.ckks.plan import largest_outputs
from sealign.ckks.serialization import Words, packed_size
from tests.security.attacker import Integers, Ring, correlation, noise_level, received_mask
from tests.unit.ckks.test_vocabulary import Vocabulary, row, vocabulary

DIMENSION, OUTPUTS = 24, 5000


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return vocabulary(tmp_path_factory.mktemp("weights") / "w", DIMENSION, OUTPUTS)


def expanded(words: Vocabulary, seeded: tuple[SeededCiphertext, ...]) -> list[Words]:
    """Both polynomials of each ciphertext in NTT form."""
    ring = Ring(words.plan.parameters)
    return [ring.expanded(one) for one in seeded]


def true_columns(words: Vocabulary, inner_block: int, output_block: int) -> Integers:
    """Integer weights of one block as they lie in its polynomial."""
    block = words.plan.block
    inner = slice(inner_block * block.inner, (inner_block + 1) * block.inner)
    outputs = slice(output_block * block.outputs, (output_block + 1) * block.outputs)
    integers: Integers = np.rint(words.weight[inner, outputs] * 2.0**words.plan.weight_scale_bits).astype(np.int64)
    flat: Integers = integers.T.ravel()
    return flat


def test_division_recovers_weights_from_bare_sums_and_noise_from_replies(words: Vocabulary) -> None:
    """One inner block's sums before sanitising, divided by the query's second polynomial; then those of a reply."""
    ring = Ring(words.plan.parameters)
    query = words.cipher.encrypt(row(DIMENSION))
    pairs = expanded(words, query.ciphertexts)
    mask = pairs[0][1]
    alone = np.zeros((len(pairs), 2, ring.degree), dtype=np.uint64)
    alone[0, 1] = mask
    evaluator = words.evaluator
    bare = evaluator._weights.product(evaluator._weights.digits(alone), 0)
    guess = ring.inverse(ring.quotient(bare[0, 1], mask))
    size = words.plan.block.inner * words.plan.block.outputs
    assert np.array_equal(guess[:size], true_columns(words, 0, 0))
    reply = next(evaluator.evaluate_parts(query, words.zeros)).ciphertexts[0]
    noise = ring.inverse(ring.quotient(received_mask(words.plan, reply), mask))[:size]
    assert correlation(noise, true_columns(words, 0, 0)) < noise_level(size)


def test_replies_hold_outputs_and_no_partial_sums(words: Vocabulary) -> None:
    plan = words.plan
    impulse = np.eye(1, DIMENSION)
    (part, *_) = words.evaluator.evaluate_parts(words.cipher.encrypt(impulse), words.zeros)
    sizes = {(len(reply.outputs), len(reply.mask)) for reply in part.ciphertexts}
    bits, degree = plan.reply_bits, plan.parameters.poly_degree
    assert sizes == {(packed_size(plan.block.outputs, bits), packed_size(degree, bits))}


def test_the_same_query_twice_gives_other_replies(words: Vocabulary) -> None:
    query = words.cipher.encrypt(row(DIMENSION))
    first, second = (next(words.evaluator.evaluate_parts(query, words.zeros)) for _ in range(2))
    differences = words.cipher.decrypt_part(first, 0) - words.cipher.decrypt_part(second, 0)
    assert np.std(differences) > words.plan.flood_std  # √2 of it
    assert first.ciphertexts[0].mask != second.ciphertexts[0].mask


def test_a_seeded_key_of_zeros_still_masks(words: Vocabulary) -> None:
    ring = Ring(words.plan.parameters)
    nothing = ring.packed(ring.constant(0))
    zeros = ZeroPool(PublicKey(words.plan.parameters, SeededCiphertext(bytes(64), nothing)))
    query = replace(words.cipher.encrypt(row(DIMENSION)), key_id=zeros.key.id)
    reply = next(words.evaluator.evaluate_parts(query, zeros)).ciphertexts[0]
    mask = expanded(words, query.ciphertexts)[0][1]
    size = words.plan.block.inner * words.plan.block.outputs
    guess = ring.inverse(ring.quotient(received_mask(words.plan, reply), mask))[:size]
    assert correlation(guess, true_columns(words, 0, 0)) < noise_level(size)


@pytest.mark.parametrize("outputs", [1000, 60_000])
def test_a_reply_carries_no_more_outputs_than_malformed_keys_may_show(tmp_path: Path, outputs: int) -> None:
    plan = vocabulary(tmp_path / "w", 8, outputs).plan
    assert plan.block.outputs <= largest_outputs(plan)
