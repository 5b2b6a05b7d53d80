"""Decryptions and the client's key: unrounded ones give it away by linear algebra, rounded ones do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from sealign.ckks import EncryptedProduct, ReplyCiphertext
from sealign.ckks.serialization import unpack_words
from tests.security.attacker import Integers, secret_coefficients, unrounded
from tests.unit.ckks.parties import Floats, Parties, head, unit_rows

UNKNOWN = 64
"""Coefficients of the key that the attacker does not know: all others are given to it, so that the test is quick."""


@dataclass(frozen=True)
class Equation:
    """What an honest silo knows of one output: the row that multiplies the key, and the constant."""

    row: list[int]
    constant: int


@pytest.fixture(scope="module")
def parties() -> Parties:
    return Parties.meet(*head(np.random.default_rng(1), 768, 4))


def sent(parties: Parties, reply: ReplyCiphertext) -> tuple[Integers, Integers]:
    """Output coefficients and second polynomial as they stand in the client's ciphertext, restored from the reply."""
    plan, cipher = parties.plan, parties.cipher
    outputs = cipher._restored(unpack_words(reply.outputs, plan.block.outputs, plan.reply_bits))
    mask = cipher._restored(unpack_words(reply.mask, plan.parameters.poly_degree, plan.reply_bits))
    return outputs.astype(np.int64), mask.astype(np.int64)


def equations(parties: Parties, product: EncryptedProduct) -> list[Equation]:
    """Output coefficient p of c0 + c1·s is c0[p] + Σ_j ±c1[p-j]·s_j, the sign negative where p-j wraps around."""
    degree, found = parties.plan.parameters.poly_degree, []
    for reply in product.ciphertexts:
        outputs, mask = sent(parties, reply)
        for value, position in zip(outputs, parties.plan.block.output_positions.ravel(), strict=True):
            indices = position - np.arange(degree)
            row = np.where(indices >= 0, mask[indices % degree], -mask[indices % degree])
            found.append(Equation([int(factor) for factor in row], int(value)))
    return found


def solved(matrix: list[list[int]], right: list[int], modulus: int) -> list[int]:
    """The solution of a square linear system modulo a prime, by Gauss and Jordan."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(len(rows)):
        pivot = next(index for index in range(column, len(rows)) if rows[index][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = pow(rows[column][column], -1, modulus)
        rows[column] = [value * inverse % modulus for value in rows[column]]
        for index, row in enumerate(rows):
            if index != column and row[column]:
                factor = row[column]
                rows[index] = [(a - factor * b) % modulus for a, b in zip(row, rows[column], strict=True)]
    return [row[-1] for row in rows]


def attacked(parties: Parties, *, rounded: bool) -> tuple[list[int], Integers]:
    """The unknown coefficients as solved for, modulo q, and as they are."""
    plan, q = parties.plan, parties.plan.parameters.modulus
    generator = np.random.default_rng(2)
    secret = secret_coefficients(parties.cipher.key)
    matrix: list[list[int]] = []
    right: list[int] = []
    while len(matrix) < UNKNOWN:
        X = unit_rows(generator, 1, plan.dimension)
        product = parties.evaluator.evaluate(parties.cipher.encrypt(X), parties.zeros)
        values: Floats = parties.cipher.decrypt(product, 1)[0] if rounded else unrounded(parties.cipher, product)
        for equation, value in zip(equations(parties, product), values, strict=False):
            known = sum(a * int(s) for a, s in zip(equation.row[UNKNOWN:], secret[UNKNOWN:], strict=True))
            matrix.append([factor % q for factor in equation.row[:UNKNOWN]])
            right.append((round(float(value) * plan.output_scale) - equation.constant - known) % q)
    return solved(matrix[:UNKNOWN], right[:UNKNOWN], q), secret[:UNKNOWN]


def test_unrounded_decryptions_give_the_key_away(parties: Parties) -> None:
    """One equation an output: as many outputs as unknown coefficients, 2,048 for a whole key."""
    found, secret = attacked(parties, rounded=False)
    q = parties.plan.parameters.modulus
    assert [value - q if value > q // 2 else value for value in found] == secret.tolist()


def test_rounded_decryptions_do_not(parties: Parties) -> None:
    """Even with all but 64 coefficients known, the equations are too coarse: what solves them is no ternary secret."""
    found, secret = attacked(parties, rounded=True)
    ternary = [value in (0, 1, parties.plan.parameters.modulus - 1) for value in found]
    assert sum(ternary) < 3
    assert found != secret.tolist()


@pytest.mark.parametrize("precision", [1 / 16, 1 / 256, 0.1])
def test_everything_that_the_cipher_returns_is_on_the_grid(precision: float) -> None:
    generator = np.random.default_rng(3)
    parties = Parties.meet(*head(generator, 300, 5), precision=precision)
    X = unit_rows(generator, 1, 300)
    reply = parties.evaluator.evaluate(parties.cipher.encrypt(X), parties.zeros)
    part = EncryptedProduct(reply.plan, reply.key_id, reply.ciphertexts[:1])
    for Y in (parties.cipher.decrypt(reply, 1), parties.cipher.decrypt_part(part, 0)):
        steps = Y / parties.plan.grid
        assert np.array_equal(steps, np.rint(steps))
    assert np.log2(parties.plan.grid) % 1 == 0
    assert precision / 4 < parties.plan.grid <= precision / 2
    assert np.abs(parties.encrypted(X) - parties.clear(X)).max() <= precision
