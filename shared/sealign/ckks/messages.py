"""What crosses the wire: encrypted matrices and encrypted products, as bytes.

The forms themselves carry part of the protection. A request holds a seed and one polynomial, so the
second polynomial is the output of a hash and never the client's choice. A reply holds the whole second
polynomial, but of the first only the coefficients that carry outputs.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from sealign.errors import InvalidInputError

SEED_BYTES = 64


def _digest(*parts: bytes) -> bytes:
    state = blake2b(digest_size=16, person=b"sealign v1")
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


@dataclass(frozen=True)
class SeededCiphertext:
    """A fresh symmetric encryption: seed of the second polynomial, packed words of the first."""

    seed: bytes
    words: bytes


@dataclass(frozen=True)
class ReplyCiphertext:
    """A sanitised reply: packed output coefficients of c0, and all of c1."""

    outputs: bytes
    mask: bytes


@dataclass(frozen=True)
class EncryptedMatrix:
    """The client's rows, encrypted: row blocks × inner blocks ciphertexts in row-major order."""

    plan: str
    key_id: bytes
    ciphertexts: tuple[SeededCiphertext, ...]

    @property
    def byte_count(self) -> int:
        """Bytes of the ciphertexts as sent."""
        return sum(len(c.seed) + len(c.words) for c in self.ciphertexts)

    def digest(self) -> bytes:
        """Binds the ciphertexts to plan and key, against accidents (16 bytes)."""
        return _digest(*_header(self), *_parts((c.seed, c.words) for c in self.ciphertexts))


@dataclass(frozen=True)
class EncryptedProduct:
    """The silo's reply: row blocks × output blocks ciphertexts in row-major order."""

    plan: str
    key_id: bytes
    ciphertexts: tuple[ReplyCiphertext, ...]

    @property
    def byte_count(self) -> int:
        """Bytes of the ciphertexts as sent."""
        return sum(len(c.outputs) + len(c.mask) for c in self.ciphertexts)

    def digest(self) -> bytes:
        """Binds the ciphertexts to plan and key, against accidents (16 bytes)."""
        return _digest(*_header(self), *_parts((c.outputs, c.mask) for c in self.ciphertexts))


def _header(message: EncryptedMatrix | EncryptedProduct) -> tuple[bytes, bytes]:
    return message.plan.encode(), message.key_id


def _parts(pairs: Iterable[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for first, second in pairs:
        yield first
        yield second


def verify_digest(message: EncryptedMatrix | EncryptedProduct, digest: bytes) -> None:
    """Check a digest that came with a message.

    Raises:
        InvalidInputError: the message was damaged, or was made for another plan or key.
    """
    if not hmac.compare_digest(message.digest(), digest):
        raise InvalidInputError(
            "the ciphertexts do not match their digest: the message was damaged in transit, or was encrypted "
            "under another key or plan. Encrypt again and resend."
        )
