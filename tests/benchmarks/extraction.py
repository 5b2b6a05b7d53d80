"""What k rows reveal of a head: ``python -m tests.benchmarks.extraction``.

A client that obeys no norm sends rows of its choice through the real encrypted product, replies sanitised, and
decrypts them itself. Weights are integers in the product. Two clients are compared:

- *within the norm*: random rows, decrypted and rounded as the SDK does; the head by least squares.
- *over-long*: rows with as many weights of each output as a reply has room for, so long that noise does not matter.

Printed for each: integer weights known exactly, cosine of the copied weights with the true ones, and how often the
copied head gives the same answer for random rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tests.security.attacker import true_weights
from tests.unit.ckks.parties import Floats, Parties, head, unit_rows

DIMENSION, OUTPUTS = 768, 8
ROWS = (64, 256, 769, 3072)
PRECISIONS = (1 / 256, 1 / 16)
_DEVIATIONS = 12.0  # between neighbouring values, so that none of them is taken for another
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Attack:
    """A client that knows the plan and the norm of the weights, and sends what it likes."""

    parties: Parties

    @cached_property
    def step(self) -> int:
        """Distance of neighbouring values that the noise of a reply does not bridge."""
        return int(np.ceil(_DEVIATIONS * self.parties.plan.error_std * self.parties.plan.output_scale))

    @cached_property
    def base(self) -> int:
        """Number of values of an integer weight."""
        return 2 * int(np.abs(true_weights(self.parties)).max()) + 1

    @cached_property
    def digits(self) -> int:
        """Weights that one output has room for."""
        room = (self.parties.plan.parameters.modulus - 1) // self.step
        return max(count for count in range(1, 64) if self.base**count < room)

    def honest(self, count: int) -> Floats:
        """Return weights by least squares from rows within the norm."""
        X = unit_rows(np.random.default_rng(count), count, DIMENSION)
        centre = self.parties.encrypted(np.zeros((1, DIMENSION)))
        Y = np.concatenate([self.parties.encrypted(row[None]) for row in X]) - centre
        weights: Floats = np.asarray(np.linalg.lstsq(X, Y, rcond=None)[0], dtype=np.float64)
        return weights

    def chosen(self, count: int) -> Floats:
        """Return weights read from over-long rows, as the digits of each output; one row tells the bias."""
        weights = np.zeros((DIMENSION, OUTPUTS), dtype=np.int64)
        bias = self._answer(np.zeros(DIMENSION, dtype=np.int64))
        for places in self._places(count - 1, self.digits):
            row = np.zeros(DIMENSION, dtype=np.int64)
            row[places] = [self.step * self.base**power for power in range(len(places))]
            rest = np.rint(self._centred(self._answer(row) - bias) / self.step).astype(object)
            for place in places:
                digit = (rest + self.base // 2) % self.base - self.base // 2
                weights[place], rest = digit.astype(np.int64), (rest - digit) // self.base
        recovered: Floats = weights / 2.0**self.parties.plan.weight_scale_bits
        return recovered

    @staticmethod
    def _places(rows: int, digits: int) -> Iterator[list[int]]:
        for start in range(0, min(rows * digits, DIMENSION), digits):
            yield list(range(start, min(start + digits, DIMENSION)))

    def _answer(self, row: Integers) -> Integers:
        """Return what the client decrypts of one row of integers, unrounded, whatever its range: shape (C,)."""
        cipher = self.parties.cipher
        product = self.parties.evaluator.evaluate(cipher._encrypted(row[None]), self.parties.zeros)
        outputs: Integers = np.concatenate([cipher._outputs(reply) for reply in product.ciphertexts])[:OUTPUTS]
        return outputs

    def _centred(self, values: Integers) -> Integers:
        q = self.parties.plan.parameters.modulus
        centred: Integers = (values + q // 2) % q - q // 2
        return centred


def measured(parties: Parties, weights: Floats) -> str:
    """Return the cells of a copied head."""
    exact = np.rint(weights * 2.0**parties.plan.weight_scale_bits) == true_weights(parties)
    X = unit_rows(np.random.default_rng(7), 10_000, DIMENSION)
    same = (X @ weights + parties.bias).argmax(axis=1) == parties.clear(X).argmax(axis=1)
    cosine = float((weights * parties.weight).sum() / np.linalg.norm(weights) / np.linalg.norm(parties.weight))
    return f"{exact.sum():,} | {cosine:.4f} | {100 * same.mean():.0f} %"


def main() -> None:
    """Print the table."""
    print("| precision | client | rows | exact weights | cosine | same answer |\n|---|---|---|---|---|---|")
    for precision in PRECISIONS:
        weight, _ = head(np.random.default_rng(0), DIMENSION, OUTPUTS)
        parties = Parties.meet(weight, np.zeros(OUTPUTS), precision=precision)
        attack = Attack(parties)
        for rows in ROWS:
            clients = [("within the norm", attack.honest(rows))]
            if rows <= DIMENSION + 1:
                clients.append(("over-long", attack.chosen(rows)))
            for name, copied in clients:
                print(f"| 1/{round(1 / precision)} | {name} | {rows:,} | {measured(parties, copied)} |", flush=True)
        print(f"{attack.digits} weights an output; a weight is one of {attack.base:,} values")


if __name__ == "__main__":
    main()
