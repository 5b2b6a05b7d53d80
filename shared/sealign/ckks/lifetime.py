"""How many replies a secret key may answer before a malicious silo could know too much of it.

A silo may send crafted replies: one that decrypts to a coefficient of the key where a logit is expected. What it then
sees of the key is what the client publishes of the answer, and whether the client failed to decrypt. Without
verification a published label tells up to log2(labels) bits a row. Under verification (`VerifiedRows`) a wrong product
is a failure; what passes is the product of the rows with *some* weights and bias, so that only the bias, one number a
label, can depend on the key, and the labels of n rows tell at most log2(n + 1) bits about each.

A failure ends a key at once, so all failures together tell only when the first one was: log2(replies + 1) bits.

Every log2(3) bits count as one known coefficient of the ternary key. A key is exhausted when the others would no longer
give 128 bits by the security table. What an honest silo sees is counted the same way, though it learns far less.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2
from threading import Lock

from sealign.ckks.parameters import ParameterSet
from sealign.errors import InvalidInputError
from sealign.security import SecurityTable


def reply_bits_told(rows: int, labels: int, *, verified: bool = False) -> float:
    """Return what publishing the answers to one reply tells about the key, in bits, its failure aside.

    Args:
        rows: rows in the reply.
        labels: what may be published for a row: the number of labels, 2^b for b bits of rounded numbers.
        verified: the reply passed `VerifiedRows.checked`, and its labels are published, not its numbers.
    """
    if rows < 1 or labels < 1:
        raise InvalidInputError(f"a reply has at least one row and one label, not {rows} and {labels}")
    unverified = rows * log2(labels)
    return min(unverified, labels * log2(rows + 1)) if verified else unverified


@dataclass
class LeakageMeter:
    """A count of the bits that a key has told. Safe to share between threads; pure arithmetic.

    Attributes:
        budget: bits that may be told.
        spent: bits that replies have told, failures aside.
        replies: replies counted.
        failed: whether a decryption failed, which exhausts the key.
    """

    budget: float
    spent: float = 0.0
    replies: int = 0
    failed: bool = False
    _refused: bool = False
    _lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def of(cls, parameters: ParameterSet, table: SecurityTable = SecurityTable.CLASSICAL) -> LeakageMeter:
        """The meter of a fresh key."""
        return cls(parameters.spare_bits(table))

    @property
    def exhausted(self) -> bool:
        """Whether the key must be replaced: a decryption failed, or a reply was refused, or not one bit is left."""
        with self._lock:
            return self.failed or self._refused or not self._affords(1.0)

    def spend(self, *, rows: int, labels: int, verified: bool = False, concealing: bool = False) -> bool:
        """Count one reply, before it is asked for. See :func:`reply_bits_told` for the arguments.

        Args:
            concealing: the reply belongs to an exchange under this key that goes on as if no decryption had failed.

        Returns:
            Whether the key may answer it. If not, nothing was counted and the key is exhausted: generate a new one.

        Raises:
            InvalidInputError: no key could answer a reply that tells so much.
        """
        bits = reply_bits_told(rows, labels, verified=verified)
        if bits + log2(2) > self.budget:
            raise InvalidInputError(
                f"answers to {rows} rows with {labels} labels would tell {bits:.0f} bits about a key that may tell "
                f"{self.budget:.0f}. Send fewer rows per request, or verify them."
            )
        with self._lock:
            if (self.failed and not concealing) or not self._affords(bits):
                self._refused = True
                return False
            self.spent += bits
            self.replies += 1
            return True

    def fail(self) -> None:
        """Record a failed decryption: the key is exhausted."""
        with self._lock:
            self.failed = True

    def _affords(self, bits: float) -> bool:
        return self.spent + bits + log2(self.replies + 2) <= self.budget


def replies_per_key(
    parameters: ParameterSet, labels: int, *, rows: int = 1, table: SecurityTable = SecurityTable.CLASSICAL
) -> int:
    """Return how many replies of ``rows`` unverified rows a key may answer: 0 where it cannot answer one."""
    bits, budget = reply_bits_told(rows, labels), parameters.spare_bits(table)
    low, high = 0, 1 << 24
    while low < high:
        middle = (low + high + 1) // 2
        if middle * bits + log2(middle + 1) <= budget:
            low = middle
        else:
            high = middle - 1
    return low
