"""The cipher and evaluator refuse, each in one clear error, what cannot be right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sealign.ckks import (
    Block,
    Cipher,
    EncryptedProduct,
    Evaluator,
    PublicKey,
    ReplyCiphertext,
    SecretKey,
    SeededCiphertext,
    ZeroPool,
    parameter_set,
)
from sealign.errors import DecryptionError, InvalidInputError, StalePlanError
from tests.unit.ckks.parties import Floats, Parties, head, unit_rows

ROWS, DIMENSION, OUTPUTS = 16, 100, 5


@pytest.fixture(scope="module")
def parties() -> Parties:
    return Parties.meet(*head(np.random.default_rng(1), DIMENSION, OUTPUTS), rows=ROWS)


@pytest.fixture(name="X")
def unit_norm_rows() -> Floats:
    return unit_rows(np.random.default_rng(2), ROWS, DIMENSION)


@pytest.fixture
def reply(parties: Parties, X: Floats) -> EncryptedProduct:
    return parties.evaluator.evaluate(parties.cipher.encrypt(X), parties.zeros)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(parties: Parties, X: Floats, value: float) -> None:
    X[3, 7] = value
    with pytest.raises(InvalidInputError, match="row 3 holds NaN or infinite"):
        parties.cipher.encrypt(X)


@pytest.mark.parametrize(
    "shape", [(1, DIMENSION - 1), (1, DIMENSION + 1), (DIMENSION,), (1, 1, DIMENSION), (0, DIMENSION), (17, DIMENSION)]
)
def test_wrong_shapes_are_refused(parties: Parties, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"1 to 16 rows in a request|rows of dimension 100"):
        parties.cipher.encrypt(np.zeros(shape))


def test_rows_that_are_too_long_are_refused(parties: Parties, X: Floats) -> None:
    X[5] *= 1.01
    with pytest.raises(InvalidInputError, match=r"row 5 has L2 norm 1\.01, the plan allows 1"):
        parties.cipher.encrypt(X)
    X[5] /= 1.0095  # within the tolerance for rounding in float32
    parties.cipher.encrypt(X)


def test_a_plan_cannot_make_the_client_build_gigabytes(parties: Parties) -> None:
    """A valid plan of one coefficient a ciphertext: refused before anything is packed."""
    wasteful = replace(parties.plan, rows=2000, block=Block(1, 1, 1))
    cipher = Cipher(wasteful, parties.cipher.key)
    cipher.encrypt(np.zeros((1, DIMENSION)))
    with pytest.raises(InvalidInputError, match="MiB of a message: send fewer rows"):
        cipher.encrypt(np.zeros((2000, DIMENSION)))


def test_key_of_another_set_is_refused(parties: Parties) -> None:
    other = SecretKey.generate(parameter_set("ckks-8192-60"))
    with pytest.raises(InvalidInputError, match="ckks-8192-60"):
        Cipher(parties.plan, other)


def test_reply_of_another_key_or_plan_is_refused(parties: Parties, reply: EncryptedProduct) -> None:
    other = SecretKey.generate(parties.plan.parameters).public_key.id
    for foreign in (replace(reply, key_id=other), replace(reply, plan="0" * 16)):
        with pytest.raises(InvalidInputError, match="another plan or another key"):
            parties.cipher.decrypt(foreign, ROWS)


def test_wrong_secret_is_noticed(parties: Parties, reply: EncryptedProduct) -> None:
    """Under a wrong key an output is uniform, inside the range with probability 1/2 at most: here 2^-80."""
    other = Cipher(parties.plan, SecretKey.generate(parties.plan.parameters))
    relabelled = replace(reply, key_id=other.key.public_key.id)
    with pytest.raises(DecryptionError, match="outside the promised range"):
        other.decrypt(relabelled, ROWS)


def test_flipped_high_bits_are_noticed_and_end_the_key(X: Floats) -> None:
    """A damaged mask changes every output: the range check stands behind the digest. The key answers no more."""
    parties = Parties.meet(*head(np.random.default_rng(1), DIMENSION, OUTPUTS), rows=ROWS)
    reply = parties.evaluator.evaluate(parties.cipher.encrypt(X), parties.zeros)
    assert not parties.cipher.key.exhausted
    ciphertexts = list(reply.ciphertexts)
    mask = bytearray(ciphertexts[0].mask)
    mask[: len(mask) // 2] = bytes(len(mask) // 2)
    ciphertexts[0] = replace(ciphertexts[0], mask=bytes(mask))
    with pytest.raises(DecryptionError, match="outside the promised range"):
        parties.cipher.decrypt(replace(reply, ciphertexts=tuple(ciphertexts)), ROWS)
    assert parties.cipher.key.exhausted
    assert not parties.cipher.key.spend(rows=1, labels=2)
    with pytest.raises(DecryptionError, match="Generate a new key"):
        parties.cipher.decrypt(reply, ROWS)


@pytest.mark.parametrize("field", ["outputs", "mask"])
@pytest.mark.parametrize("cut", [0, 1, -1])
def test_cut_replies_are_refused(parties: Parties, reply: EncryptedProduct, field: str, cut: int) -> None:
    first = reply.ciphertexts[0]
    content: bytes = getattr(first, field)
    changed = {0: b"", 1: content + b"\0", -1: content[:-1]}[cut]
    ciphertexts = (replace(first, **{field: changed}), *reply.ciphertexts[1:])
    with pytest.raises(InvalidInputError, match="the reply was cut"):
        parties.cipher.decrypt(replace(reply, ciphertexts=ciphertexts), ROWS)


def test_missing_and_surplus_reply_ciphertexts_are_refused(parties: Parties, reply: EncryptedProduct) -> None:
    for ciphertexts in ((), reply.ciphertexts[:-1], (*reply.ciphertexts, ReplyCiphertext(b"", b""))):
        with pytest.raises(InvalidInputError, match="the reply holds"):
            parties.cipher.decrypt(replace(reply, ciphertexts=ciphertexts), ROWS)


def test_evaluator_refuses_foreign_queries(parties: Parties, X: Floats) -> None:
    query = parties.cipher.encrypt(X)
    with pytest.raises(StalePlanError, match="describe the task"):
        parties.evaluator.evaluate(replace(query, plan="0" * 16), parties.zeros)
    other = ZeroPool(SecretKey.generate(parties.plan.parameters).public_key)
    with pytest.raises(InvalidInputError, match="do not belong together"):
        parties.evaluator.evaluate(query, other)
    foreign = ZeroPool(SecretKey.generate(parameter_set("ckks-8192-60")).public_key)
    with pytest.raises(InvalidInputError, match="upload a key"):
        parties.evaluator.evaluate(replace(query, key_id=foreign.key.id), foreign)


def test_evaluator_refuses_wrong_counts(parties: Parties, X: Floats) -> None:
    query = parties.cipher.encrypt(X)
    assert len(query.ciphertexts) > 1
    for ciphertexts in ((), query.ciphertexts[:-1], query.ciphertexts * 2):
        with pytest.raises(InvalidInputError, match="the query holds"):
            parties.evaluator.evaluate(replace(query, ciphertexts=ciphertexts), parties.zeros)


def test_good_query_works_after_bad_ones(parties: Parties, X: Floats) -> None:
    query = parties.cipher.encrypt(X)
    bad = replace(query.ciphertexts[-1], words=query.ciphertexts[-1].words[:-1])
    with pytest.raises(InvalidInputError):
        parties.evaluator.evaluate(replace(query, ciphertexts=(*query.ciphertexts[:-1], bad)), parties.zeros)
    assert np.abs(parties.encrypted(X) - parties.clear(X)).max() <= parties.plan.precision


def test_malformed_public_key_is_refused(parties: Parties) -> None:
    seeded = parties.zeros.key.seeded
    with pytest.raises(InvalidInputError, match="public key"):
        ZeroPool(PublicKey(parties.plan.parameters, SeededCiphertext(seeded.seed, seeded.words[:-1])))


def test_evaluator_refuses_weights_that_do_not_fit(parties: Parties) -> None:
    weight, bias, plan = parties.weight, parties.bias, parties.plan
    with pytest.raises(InvalidInputError, match="plan again"):
        Evaluator(plan, weight[:-1], bias)
    with pytest.raises(InvalidInputError, match="plan again"):
        Evaluator(plan, weight, bias[:-1])
    with pytest.raises(InvalidInputError, match="NaN"):
        Evaluator(plan, np.where(np.arange(DIMENSION)[:, None] == 3, np.nan, weight), bias)
    with pytest.raises(InvalidInputError, match="NaN"):
        Evaluator(plan, weight, bias + np.inf)
