"""Chosen integers at chosen coefficients, through SEAL's complex slots."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tenseal import sealapi

from sealign.ckks import parameter_set
from sealign.ckks.backend import backend
from sealign.ckks.serialization import _ciphertext_body, _load, ciphertext_words
from sealign.ckks.slots import coefficients_from_slots, slots_from_coefficients

DEGREES = pytest.mark.parametrize("degree", [2048, 4096, 8192])


def _random(degree: int, bits: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    limit = 1 << bits
    return np.random.default_rng(seed).integers(-limit, limit + 1, size=degree)


@DEGREES
@given(bits=st.integers(0, 40), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_slots_round_trip(degree: int, bits: int, seed: int) -> None:
    coefficients = _random(degree, bits, seed)
    slots = slots_from_coefficients(coefficients)
    assert slots.shape == (degree // 2,)
    assert np.array_equal(np.rint(coefficients_from_slots(slots)), coefficients)


def test_slots_are_values_at_powers_of_three() -> None:
    """For N = 8 the slots are the values at ζ, ζ³, ζ⁹, ζ²⁷, with ζ = exp(iπ/8), by Horner's rule."""
    coefficients = np.array([3, -1, 4, 1, -5, 9, 2, -6])
    zeta = np.exp(1j * np.pi / 8)
    expected = [np.polyval(coefficients[::-1], zeta**power) for power in (1, 3, 9, 27)]
    assert np.allclose(slots_from_coefficients(coefficients), expected)


@pytest.mark.parametrize("name", ["ckks-2048-42", "ckks-4096-60", "ckks-8192-60"])
@given(bits=st.integers(0, 40), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=15)
def test_seals_encoder_keeps_the_integers(name: str, bits: int, seed: int) -> None:
    parameters = parameter_set(name)
    coefficients = _random(parameters.poly_degree, bits, seed)
    working = backend(parameters)
    assert np.array_equal(np.rint(working.decode(working.encode(coefficients))), coefficients)


def test_seals_polynomial_holds_exactly_the_integers() -> None:
    """Not only decode after encode: the residues inside SEAL's polynomial are the integers modulo q."""
    parameters = parameter_set("ckks-2048-42")
    working = backend(parameters)
    coefficients = _random(2048, 40, 5)
    words = np.zeros((2, 2048), dtype=np.uint64)
    words[1] = 1  # SEAL refuses a second polynomial of zero
    holder = _load(sealapi.Ciphertext(), working.context, _ciphertext_body(working.context, words, ntt=True))
    working.evaluator.add_plain_inplace(holder, working.encode(coefficients))
    working.evaluator.transform_from_ntt_inplace(holder)
    assert np.array_equal(ciphertext_words(holder)[0], (coefficients % parameters.modulus).astype(np.uint64))
