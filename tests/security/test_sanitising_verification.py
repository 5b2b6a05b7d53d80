"""A silo that returns another product: caught by check rows, but with a stated probability and above a stated size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sealign.ckks import EncryptedProduct, SecretKey, VerifiedRows
from sealign.ckks.serialization import pack_words, unpack_words
from sealign.errors import VerificationError
from tests.security.attacker import correlation, secret_coefficients
from tests.unit.ckks.parties import Floats, Parties, head, unit_rows
from tests.unit.ckks.test_verification import noisy, planned

ROWS, DIMENSION, OUTPUTS, CHECKS = 40, 100, 4, 24


def _single_entry(Y: Floats, tolerance: float) -> None:
    Y[17, 2] += 1.01 * tolerance


def _swapped(Y: Floats, tolerance: float) -> None:
    Y[[5, 31]] = Y[[31, 5]]


def _scaled_row(Y: Floats, tolerance: float) -> None:
    Y[11] *= -1


def _zeros(Y: Floats, tolerance: float) -> None:
    Y[:] = np.random.default_rng(1).normal(scale=0.5, size=Y.shape)


def _half_of_the_rows(Y: Floats, tolerance: float) -> None:
    Y[::2] = 0


def _small_everywhere(Y: Floats, tolerance: float) -> None:
    Y += np.random.default_rng(2).choice([-0.1, 0.1], size=Y.shape)


@pytest.mark.parametrize("known", [True, False], ids=["bias known", "bias unknown"])
@pytest.mark.parametrize("tamper", [_single_entry, _swapped, _scaled_row, _zeros, _half_of_the_rows, _small_everywhere])
def test_a_tampered_product_is_caught(tamper: Callable[[Floats, float], None], known: bool) -> None:
    generator = np.random.default_rng(3)
    weight, bias = head(generator, DIMENSION, OUTPUTS)
    plan = planned(weight, bias, ROWS + CHECKS)
    X = unit_rows(generator, ROWS, DIMENSION)
    for _ in range(30):
        key = SecretKey.generate(plan.parameters)
        verified = VerifiedRows.of(X, plan, key, bias=bias if known else None)
        Y = noisy(plan, verified.rows, weight, bias, generator)
        tamper(Y, verified.tolerance)
        with pytest.raises(VerificationError, match="not the product"):
            verified.checked(Y)
        assert key.exhausted


@pytest.mark.parametrize("checks", [2, 4, 6])
def test_a_deviation_that_cancels_by_luck_passes_with_probability_2_to_the_minus_checks(checks: int) -> None:
    """Two equal deviations cancel in a check where their signs differ: the best that a silo can do."""
    trials, generator = 4000, np.random.default_rng(4)
    weight = head(generator, 10, 1)[0]
    plan = planned(weight, np.zeros(1), 20 + checks)
    X, passed = unit_rows(generator, 20, 10), 0
    key = SecretKey.generate(plan.parameters)
    for _ in range(trials):
        verified = VerifiedRows.of(X, plan, key, checks=checks, bias=np.zeros(1))
        Y = verified.rows @ weight
        Y[verified.checks.places[[3, 8]]] += 4 * verified.tolerance  # rows whose places the silo happened to guess
        try:
            verified.checked(Y)
            passed += 1
        except VerificationError:
            pass
    expected = trials * 2.0**-checks
    assert abs(passed - expected) < 5 * np.sqrt(expected)


def test_replies_crafted_to_read_the_key_are_caught() -> None:
    """Real ciphertexts: A·X^m added to a reply's second polynomial puts A·s_j on every output of that ciphertext."""
    parties = Parties.meet(*head(np.random.default_rng(5), DIMENSION, OUTPUTS), rows=ROWS + CHECKS)
    plan, cipher = parties.plan, parties.cipher
    X = unit_rows(np.random.default_rng(6), ROWS, DIMENSION)
    verified = VerifiedRows.of(X, plan, cipher.key)
    reply = parties.evaluator.evaluate(cipher.encrypt(verified.rows), parties.zeros)
    degree, bits = plan.parameters.poly_degree, plan.reply_bits
    mask = unpack_words(reply.ciphertexts[0].mask, degree, bits)
    amplitude = plan.range / 4
    step = np.uint64(round(amplitude * plan.output_scale) >> plan.dropped_bits)
    mask[0] = (mask[0] + step) % np.uint64(plan.parameters.modulus >> plan.dropped_bits)
    crafted = replace(reply.ciphertexts[0], mask=pack_words(mask, bits))
    Y = cipher.decrypt(EncryptedProduct(reply.plan, reply.key_id, (crafted, *reply.ciphertexts[1:])), ROWS + CHECKS)

    # Below the check: the outputs show coefficients of the key.
    honest = verified.rows @ parties.weight + parties.bias
    secret = secret_coefficients(cipher.key)
    block = plan.block
    read = np.rint((Y - honest)[: block.rows, : block.outputs] / amplitude)
    assert np.array_equal(read, secret[block.output_positions[: len(read)]])
    with pytest.raises(VerificationError):
        verified.checked(Y)
    assert cipher.key.exhausted


class TestWhatVerificationDoesNotGive:
    """The limits that the module states."""

    def test_another_head_is_a_valid_product(self) -> None:
        generator = np.random.default_rng(7)
        weight, bias = head(generator, DIMENSION, OUTPUTS)
        plan = planned(weight, bias, ROWS + CHECKS)
        verified = VerifiedRows.of(unit_rows(generator, ROWS, DIMENSION), plan, SecretKey.generate(plan.parameters))
        verified.checked(noisy(plan, verified.rows, -weight, bias + 1, generator))

    def test_a_known_bias_is_held_to(self) -> None:
        generator = np.random.default_rng(8)
        weight, bias = head(generator, DIMENSION, OUTPUTS)
        plan = planned(weight, bias, ROWS + CHECKS)
        key = SecretKey.generate(plan.parameters)
        verified = VerifiedRows.of(unit_rows(generator, ROWS, DIMENSION), plan, key, bias=bias)
        with pytest.raises(VerificationError):
            verified.checked(noisy(plan, verified.rows, weight, bias + 1, generator))

    def test_small_deviations_carry_the_key_and_noise_on_what_is_sent_back_hides_it(self) -> None:
        """A silo hides each coefficient in eight entries, far below the tolerance, and leaves its flood out."""
        generator = np.random.default_rng(9)
        rows, outputs = 128, 64
        weight = generator.normal(size=(200, outputs)) / 15
        plan = planned(weight, np.zeros(outputs), rows + CHECKS, streamed=True)
        key = SecretKey.generate(plan.parameters)
        verified = VerifiedRows.of(unit_rows(generator, rows, 200), plan, key, bias=np.zeros(outputs))
        coefficients = generator.integers(-1, 2, size=rows * outputs // 8)
        amplitude = 0.15 * plan.precision
        hidden = np.repeat(coefficients, 8).reshape(rows, outputs) * amplitude
        exact = verified.rows @ weight
        exact[verified.checks.places[:rows]] += hidden
        Y = verified.checked(np.rint(exact / plan.grid) * plan.grid)  # passes
        assert np.sum(hidden**2) < verified.tolerated_energy

        def read(sent_back: Floats) -> float:
            """How well the silo, which knows the rows' true product, reads the coefficients."""
            deviations = sent_back - (verified.rows @ weight)[verified.checks.places[:rows]]
            return correlation(deviations.reshape(-1, 8).mean(axis=1), coefficients)

        assert read(Y) > 0.8
        masked = verified.masked(Y, bits=100.0)
        told = -0.5 * len(coefficients) * np.log2(1 - min(read(masked), 0.99) ** 2)
        assert told < 100 + 30  # what a correlation over so many values shows by chance
        assert np.std(masked - Y) == pytest.approx(verified.masking_std(100.0), rel=0.05)


def test_deviations_beyond_the_tolerated_energy_are_caught_wherever_they_are() -> None:
    generator = np.random.default_rng(10)
    weight = generator.normal(size=(60, 20)) / 8
    plan = planned(weight, np.zeros(20), 100 + CHECKS)
    X = unit_rows(generator, 100, 60)
    shapes: list[Callable[[], Floats]] = [
        lambda: generator.normal(size=(100, 20)),  # everywhere
        lambda: np.outer(generator.normal(size=100), generator.normal(size=20)),  # of rank one
        lambda: np.outer(np.ones(100), np.eye(20)[4]),  # one constant in one column
        lambda: np.outer(np.eye(100)[7], generator.normal(size=20)),  # one row
    ]
    for shape in shapes:
        for _ in range(20):
            verified = VerifiedRows.of(X, plan, SecretKey.generate(plan.parameters), bias=np.zeros(20))
            deviation = shape()
            deviation *= 1.01 * np.sqrt(verified.tolerated_energy) / np.linalg.norm(deviation)
            Y = noisy(plan, verified.rows, weight, np.zeros(20), generator)
            Y[verified.checks.places[:100]] += deviation
            with pytest.raises(VerificationError):
                verified.checked(Y)
