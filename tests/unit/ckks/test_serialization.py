"""The bytes module: packed words, and SEAL's containers rebuilt from bare words and seeds."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tenseal import sealapi

from sealign.ckks import PARAMETER_SETS, ParameterSet, PublicKey, SecretKey, SeededCiphertext, parameter_set
from sealign.ckks.backend import backend
from sealign.ckks.serialization import (
    ciphertext_from_coefficients,
    ciphertext_words,
    load_secret_key,
    load_seeded,
    pack_words,
    packed_size,
    save_secret_key,
    seeded_words,
    unpack_words,
)
from sealign.errors import InvalidInputError
from tests.unit.ckks import blake2xb

PARAMETERS = parameter_set("ckks-2048-36")
WORD_BYTES = packed_size(2048, 36)


def load(seeded: SeededCiphertext, parameters: ParameterSet = PARAMETERS) -> sealapi.Ciphertext:
    return load_seeded(sealapi.Ciphertext(), backend(parameters).context, parameters, seeded, "ciphertext")


def fresh(parameters: ParameterSet = PARAMETERS) -> SeededCiphertext:
    coefficients = np.arange(parameters.poly_degree)
    return SecretKey.generate(parameters).encrypt(backend(parameters).encode(coefficients))


@given(bits=st.integers(1, 64), count=st.integers(0, 50), seed=st.integers(0, 2**32))
@settings(max_examples=200)
def test_packed_words_round_trip(bits: int, count: int, seed: int) -> None:
    words = np.random.default_rng(seed).integers(0, 1 << bits, size=count, dtype=np.uint64, endpoint=False)
    packed = pack_words(words, bits)
    assert len(packed) == packed_size(count, bits)
    assert np.array_equal(unpack_words(packed, count, bits), words)


@given(bits=st.integers(1, 64))
def test_extreme_words_round_trip(bits: int) -> None:
    words = np.array([0, (1 << bits) - 1, 0, 1 << (bits - 1)], dtype=np.uint64)
    assert np.array_equal(unpack_words(pack_words(words, bits), 4, bits), words)


def test_packing_is_little_endian() -> None:
    """0xABC and 0x123 in 12 bits each are the number 0x123ABC, lowest octet first."""
    assert pack_words(np.array([0xABC, 0x123], dtype=np.uint64), 12) == bytes([0xBC, 0x3A, 0x12])


def test_blake2xb_stands_on_hashlib() -> None:
    assert blake2xb.blake2b(b"abc") == hashlib.blake2b(b"abc").digest()


@pytest.mark.parametrize("name", ["ckks-2048-32", "ckks-2048-42", "ckks-4096-60"])
def test_second_polynomial_is_the_hash_of_the_seed(name: str) -> None:
    """Derived without SEAL: BLAKE2Xb of the seed, 64 bits a word, modulo q. The client has no choice in it.

    SEAL rejects words of the last incomplete multiple of q below 2^64; a fixed seed has none of them here.
    """
    parameters = parameter_set(name)
    seed = bytes(range(64))
    words = np.zeros(parameters.poly_degree, dtype=np.uint64)
    loaded = load(SeededCiphertext(seed, pack_words(words, parameters.modulus_bits)), parameters)
    stream = blake2xb.expanded_seed(seed, parameters.poly_degree)
    assert max(stream) < (1 << 64) // parameters.modulus * parameters.modulus
    assert ciphertext_words(loaded)[1].tolist() == [word % parameters.modulus for word in stream]


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_expansion_equals_seals_own(tmp_path: Path, name: str) -> None:
    parameters = parameter_set(name)
    context = backend(parameters).context
    encryptor = sealapi.Encryptor(context, sealapi.KeyGenerator(context).secret_key())
    saved = encryptor.encrypt_symmetric(backend(parameters).encode(np.arange(parameters.poly_degree)))
    saved.save(str(tmp_path / "seeded"))
    expected = sealapi.Ciphertext()
    expected.load(context, str(tmp_path / "seeded"))

    seed, words = seeded_words(saved)
    loaded = load(SeededCiphertext(seed, pack_words(words, parameters.modulus_bits)), parameters)
    assert np.array_equal(ciphertext_words(loaded), ciphertext_words(expected))
    assert (loaded.is_ntt_form(), loaded.parms_id()) == (expected.is_ntt_form(), expected.parms_id())
    assert loaded.scale == expected.scale


def test_public_key_loads_as_seals() -> None:
    key = SecretKey.generate(PARAMETERS).public_key
    zero = sealapi.Ciphertext()
    sealapi.Encryptor(backend(PARAMETERS).context, key.seal_key()).encrypt_zero(zero)
    assert ciphertext_words(zero).shape == (2, 2048)


def test_coefficients_and_ntt_form_agree() -> None:
    working = backend(PARAMETERS)
    ciphertext = load(fresh())
    ntt = ciphertext_words(ciphertext)
    working.evaluator.transform_from_ntt_inplace(ciphertext)
    rebuilt = ciphertext_from_coefficients(working.context, ciphertext_words(ciphertext))
    working.evaluator.transform_to_ntt_inplace(rebuilt)
    assert np.array_equal(ciphertext_words(rebuilt), ntt)


BAD_LENGTHS = {
    "no seed": (0, WORD_BYTES),
    "short seed": (63, WORD_BYTES),
    "long seed": (65, WORD_BYTES),
    "a second polynomial for a seed": (WORD_BYTES, WORD_BYTES),
    "no words": (64, 0),
    "truncated": (64, WORD_BYTES - 1),
    "one byte over": (64, WORD_BYTES + 1),
    "two polynomials": (64, 2 * WORD_BYTES),
    "64-bit words": (64, 2048 * 8),
    "another degree": (64, packed_size(4096, 36)),
    "oversized": (64, 1 << 22),
}


@pytest.mark.parametrize(("seed", "words"), BAD_LENGTHS.values(), ids=BAD_LENGTHS)
@pytest.mark.parametrize("what", ["ciphertext", "public key"])
def test_wrong_lengths_are_refused(seed: int, words: int, what: str) -> None:
    seeded = SeededCiphertext(bytes(seed), bytes(words))
    with pytest.raises(InvalidInputError, match=f"{what} of ckks-2048-36 .*not in seeded form"):
        load(seeded) if what == "ciphertext" else PublicKey(PARAMETERS, seeded).seal_key()


@pytest.mark.parametrize("word", [PARAMETERS.modulus, PARAMETERS.modulus + 1, (1 << 36) - 1])
@pytest.mark.parametrize("position", [0, 1000, 2047])
def test_words_that_are_no_residues_are_refused(word: int, position: int) -> None:
    words = np.zeros(2048, dtype=np.uint64)
    words[position] = word
    with pytest.raises(InvalidInputError, match="not residues"):
        load(SeededCiphertext(bytes(64), pack_words(words, 36)))
    words[position] = PARAMETERS.modulus - 1
    load(SeededCiphertext(bytes(64), pack_words(words, 36)))


@given(seed=st.binary(max_size=80), words=st.binary(max_size=200))
@settings(deadline=None)
def test_random_bytes_are_refused(seed: bytes, words: bytes) -> None:
    with pytest.raises(InvalidInputError):
        load(SeededCiphertext(seed, words))


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_random_bytes_of_the_right_length_are_residues_or_refused(seed: int) -> None:
    """Such bytes are one more ciphertext, of nothing; only the digest tells. They must not crash SEAL."""
    noise = np.random.default_rng(seed).bytes(64 + WORD_BYTES)
    try:
        words = ciphertext_words(load(SeededCiphertext(noise[:64], noise[64:])))
    except InvalidInputError:
        return
    assert int(words.max()) < PARAMETERS.modulus


def test_foreign_parameters_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="other parameters"):
        load(fresh(parameter_set("ckks-2048-40")))


def test_secret_key_round_trip_and_damage() -> None:
    context = backend(PARAMETERS).context
    body = save_secret_key(sealapi.KeyGenerator(context).secret_key())
    assert save_secret_key(load_secret_key(context, body)) == body
    for damaged in (b"", body[:-1], body[:40], b"\xff" * len(body), bytes(len(body))):
        with pytest.raises(InvalidInputError, match="not a secret key"):
            load_secret_key(context, damaged)
    with pytest.raises(InvalidInputError, match="not a secret key"):
        load_secret_key(backend(parameter_set("ckks-2048-40")).context, body)


@given(position=st.integers(0, 120), value=st.integers(0, 255))
@settings(deadline=None, max_examples=60)
def test_secret_key_with_a_changed_header_never_crashes(position: int, value: int) -> None:
    context = backend(PARAMETERS).context
    body = bytearray(save_secret_key(sealapi.KeyGenerator(context).secret_key()))
    body[position] = value
    with suppress(InvalidInputError):
        load_secret_key(context, bytes(body))
