"""Verified products: hidden check rows among the encrypted rows catch a silo that returns another product (Freivalds).

A check row is a random ±1 combination of all rows, scaled to the plan's row norm, at a random place among them. The
product of an honest silo is the same combination of the other products, up to the errors that the plan promises. Signs
and places come from the operating system's randomness, are new for every product, and never leave this object.

**What it gives.** If one entry of the product is off by more than :attr:`VerifiedRows.tolerance`, whatever the others
are, each check row notices with probability 1/2 or more, independently: flipping the sign of that entry's row moves a
check by twice the deviation. With the default of 24 check rows such a product passes with probability under 2^-20. A
second test adds the squares of all checks. It bounds how large all deviations together may be
(:attr:`VerifiedRows.tolerated_energy`), so that none hides in many small ones.

**What it does not give.** It shows that the product is that of the rows with *some* weights and bias, not with the
silo's own: another head, or another constant added to one output of every row, is a valid product. That constant may
depend on the key, so published labels of a verified batch still count (`lifetime.reply_bits_told`), unless the bias is
known, as it is in alignment. Deviations below the tolerance pass. They move a label only where two logits are as close.
But numbers that are sent back, as a registered map's covariances are, show them: a silo could hide coefficients of
the key in the last bits of every entry. Rounding would not hide them. So what is sent back is computed from
:meth:`VerifiedRows.masked`, which adds fresh Gaussian noise: deviations of energy E under noise of deviation τ carry
at most E / (2·τ²·ln 2) bits (capacity of the Gaussian channel), and τ is chosen so that this is what the key has left.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, exp, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealign.ckks.cipher import Columns, checked_rows, columns_of
from sealign.ckks.keys import SecretKey
from sealign.ckks.plan import PackingPlan
from sealign.ckks.randomness import gaussian
from sealign.errors import InvalidInputError, VerificationError

Floats = NDArray[np.float64]

CHECKS = 24
"""Check rows of a product: 20 for a probability of 2^-20, one for an unknown bias, and three for the noise."""

_MISSED = 2.0**-20
_FALSE_ALARM = 1e-12
"""Probability that an honest product is refused."""


def free_rows(plan: PackingPlan, rows: int) -> int:
    """Return how many check rows a request of so many rows can carry without one more ciphertext."""
    return min(ceil(rows / plan.block.rows) * plan.block.rows, plan.rows) - rows


class CheckRows(NamedTuple):
    """How the check rows of one product were made. Secret: a silo that knows them can pass any check.

    Attributes:
        signs: ±1, shape (checks, n).
        scales: factors that keep check rows within the row norm, shape (checks,).
        places: where each row and check row went, shape (n + checks,).
    """

    signs: Floats
    scales: Floats
    places: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class VerifiedRows:
    """The rows of one product with check rows among them. Used once.

    Attributes:
        plan: of the product.
        key: exhausted when the product is found wrong.
    """

    plan: PackingPlan
    key: SecretKey
    _columns: Columns
    _signs: Floats
    _scales: Floats
    _places: NDArray[np.int64]
    _bias: Floats | None

    @classmethod
    def of(
        cls,
        X: NDArray[np.floating],
        plan: PackingPlan,
        key: SecretKey,
        *,
        checks: int = CHECKS,
        bias: Floats | None = None,
    ) -> VerifiedRows:
        """Hide check rows among rows X of shape (n, d), each within the plan's row norm.

        Args:
            X: the rows.
            plan: for at least n + checks rows; its range holds for every row within the row norm.
            key: under which the rows are encrypted.
            checks: number of check rows, at least 2.
            bias: of the product, shape (C,), where the client knows it: zeros in alignment.

        Raises:
            InvalidInputError: no rows, rows that the plan cannot carry, or more than it takes with the check rows.
        """
        _require_fit(plan, len(X), checks)
        rows = checked_rows(X, plan)
        made = _made(plan, _random_signs(checks, len(rows)), lambda signs: np.linalg.norm(signs @ rows, axis=1))
        return cls(plan, key, columns_of(rows), *made, bias)

    @classmethod
    def of_columns(
        cls, columns: Columns, gram: Floats, plan: PackingPlan, key: SecretKey, bias: Floats
    ) -> VerifiedRows:
        """Hide check rows among rows X that come column by column, as :meth:`of` does.

        Args:
            columns: of the rows, each within the plan's row norm.
            gram: X·Xᵀ, (n, n), from which the norms of check rows follow.
            plan, key, bias: as for :meth:`of`.

        Raises:
            InvalidInputError: no rows, or more than the plan takes with the check rows.
        """
        _require_fit(plan, len(gram), CHECKS)
        made = _made(
            plan,
            _random_signs(CHECKS, len(gram)),
            lambda signs: np.sqrt(np.maximum(((signs @ gram) * signs).sum(axis=1), 0.0)),
        )
        return cls(plan, key, columns, *made, bias)

    @property
    def rows(self) -> Floats:
        """All rows, shape (n + checks, d): what to encrypt."""
        return self.columns(0, self.plan.dimension)

    @property
    def total(self) -> int:
        """Number of rows to encrypt: the rows and the check rows."""
        return len(self._places)

    def columns(self, first: int, last: int) -> Floats:
        """Return some columns of the rows to encrypt, shape (n + checks, last - first)."""
        rows = self._columns(first, last)
        hidden = np.empty((self.total, rows.shape[1]))
        hidden[self._places] = np.concatenate([rows, (self._signs @ rows) * self._scales[:, None]])
        return hidden

    @property
    def checks(self) -> CheckRows:
        """The check rows, to be stored where the product comes in another process."""
        return CheckRows(self._signs, self._scales, self._places)

    def restored(self, checks: CheckRows) -> VerifiedRows:
        """Return the same rows with stored check rows among them."""
        return replace(self, _signs=checks.signs, _scales=checks.scales, _places=checks.places)

    def checked(self, Y: Floats) -> Floats:
        """Return the product of the rows alone, shape (n, C), in their order, from that of all rows (n + checks, C).

        Raises:
            VerificationError: the product is not that of these rows with any weights; the key is exhausted.
        """
        if Y.shape != (self.total, self.plan.outputs):
            raise InvalidInputError(f"a product of shape {(self.total, self.plan.outputs)} is expected, not {Y.shape}")
        ordered = Y[self._places]
        energies = self._energies(ordered)
        if energies.max() > self._limit(1) or energies.sum() > self._limit(self.plan.outputs):
            self.key.leakage.fail()
            raise VerificationError(
                "the silo's reply is not the product of the encrypted rows: it was damaged, or the silo is malicious. "
                "Nothing was computed from it; do not use this silo before you know why."
            )
        return np.ascontiguousarray(ordered[: self._count])

    @property
    def tolerance(self) -> float:
        """Deviation of an entry above which a product passes with probability 2^-20 at most."""
        spread = self._limit(1) * float(np.linalg.eigvalsh(self._covariance)[-1])
        return self.plan.error_std * sqrt(spread) * (1 if self._bias is not None else 2)

    @property
    def tolerated_energy(self) -> float:
        """Sum of the squared deviations of all entries above which a product passes with probability 2^-20 at most.

        The weighted sum of the squared checks of given deviations is, for the worst of them, as χ² of the checks.
        """
        spread = float(np.linalg.eigvalsh(self._covariance)[-1])
        least = _chi_square_share(self._freedom, _MISSED) * self._freedom
        return self.plan.error_std**2 * spread * self._limit(self.plan.outputs) / least

    def masking_std(self, bits: float) -> float:
        """Standard deviation of noise under which tolerated deviations tell at most so many bits."""
        return sqrt(self.tolerated_energy / (2 * bits * log(2)))

    def masked(self, Y: Floats, bits: float | None = None) -> Floats:
        """Return a checked product with noise, for everything that is sent back to the silo.

        Args:
            Y: what :meth:`checked` returned.
            bits: what deviations may tell about the key; half of what it may tell in its life unless given.
        """
        told = self.key.leakage.budget / 2 if bits is None else bits
        noisy: Floats = Y + gaussian(Y.size, self.masking_std(told)).reshape(Y.shape)
        return noisy

    @property
    def _count(self) -> int:
        return int(self._signs.shape[1])

    @property
    def _freedom(self) -> int:
        """Degrees of freedom of a column's checks."""
        return len(self._signs) - (self._bias is None)

    @cached_property
    def _covariance(self) -> Floats:
        """Of the checks of one column, in units of the variance of an output's error: shape (checks, checks)."""
        covariance: Floats = np.diag(self._scales**-2.0) + self._signs @ self._signs.T
        return covariance

    def _energies(self, ordered: Floats) -> Floats:
        """χ² of each column's checks, shape (C,): of ``_freedom`` degrees where only the plan's errors are in them."""
        residuals = ordered[self._count :] / self._scales[:, None] - self._signs @ ordered[: self._count]
        lean = 1 / self._scales - self._signs.sum(axis=1)  # how often a check holds the bias
        if self._bias is not None:
            residuals = residuals - np.outer(lean, self._bias)
        root = np.linalg.cholesky(self._covariance)
        white = np.linalg.solve(root, residuals)
        if self._bias is None:
            direction = np.linalg.solve(root, lean)
            direction /= max(float(np.linalg.norm(direction)), 1e-30)
            white = white - np.outer(direction, direction @ white)
        energies: Floats = (white**2).sum(axis=0) / self.plan.error_std**2
        return energies

    def _limit(self, columns: int) -> float:
        """Bound of the χ² of so many columns that an honest product keeps (Laurent and Massart, 2000, lemma 1)."""
        freedom = self._freedom * columns
        deviation = log(self.plan.outputs / _FALSE_ALARM)
        return freedom + 2 * sqrt(freedom * deviation) + 2 * deviation


def _require_fit(plan: PackingPlan, rows: int, checks: int) -> None:
    if checks < 2 or rows < 1 or rows + checks > plan.rows:
        raise InvalidInputError(
            f"{rows} rows and {checks} check rows do not fit a plan of {plan.rows} rows: send 1 to "
            f"{plan.rows - checks} rows, with 2 check rows or more"
        )


def _made(plan: PackingPlan, signs: Floats, norms: Callable[[Floats], Floats]) -> CheckRows:
    """Return check rows of some signs, given the norms of what they combine to."""
    scales: Floats = np.minimum(1.0, plan.row_norm / np.maximum(norms(signs), 1e-30))
    places = list(range(sum(signs.shape)))
    secrets.SystemRandom().shuffle(places)
    return CheckRows(signs, scales, np.array(places))


def _random_signs(rows: int, columns: int) -> Floats:
    """Independent ±1 from the operating system's randomness, shape (rows, columns)."""
    octets = np.frombuffer(os.urandom(rows * ceil(columns / 8)), dtype=np.uint8).reshape(rows, -1)
    signs: Floats = 1.0 - 2.0 * np.unpackbits(octets, axis=1)[:, :columns].astype(np.float64)
    return signs


def _chi_square_share(freedom: int, probability: float) -> float:
    """Share of its mean below which χ² falls with this probability at most (Chernoff's bound)."""
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        if (share * exp(1 - share)) ** (freedom / 2) <= probability:
            low = share
        else:
            high = share
    return low
