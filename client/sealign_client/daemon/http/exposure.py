"""What an embedding gives away: the public texts that are found from it, bare, rotated and encrypted."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

MOST_TEXTS = 1000
"""Public texts that are retained for the search."""
NEIGHBOURS = 3
_BITS = 32


@dataclass(frozen=True)
class Neighbour:
    """A public text, and the cosine of its embedding with what was observed."""

    text: str
    cosine: float


@dataclass(frozen=True)
class Exposure:
    """What somebody finds who holds public texts and sees one of three things.

    Attributes:
        bare: from the embedding itself, with the client's encoder, which is public.
        rotated: from the embedding under a secret rotation, among public texts under the same rotation, as an alignment
            over rotated embeddings would show them. A rotation keeps every angle.
        encrypted: from the words of the ciphertext, read as numbers.
    """

    bare: tuple[Neighbour, ...]
    rotated: tuple[Neighbour, ...]
    encrypted: tuple[Neighbour, ...]


class PublicTexts:
    """Public texts with this client's embeddings of them, in memory."""

    def __init__(self) -> None:
        self._texts: tuple[str, ...] = ()
        self._rows: Rows = np.zeros((0, 0))

    def __len__(self) -> int:
        return len(self._texts)

    def replace(self, texts: tuple[str, ...], rows: NDArray[np.float32]) -> None:
        """Retain the first texts and their embeddings, shape (n, d), in place of earlier ones."""
        self._texts, self._rows = texts[:MOST_TEXTS], _unit(rows[:MOST_TEXTS].astype(np.float64))

    def exposure(self, embedding: NDArray[np.float32], ciphertext: bytes) -> Exposure:
        """Return what is found from an embedding, shape (d,), and from the ciphertext of the same call."""
        row = _unit(embedding.astype(np.float64)[None])[0]
        rotation = _rotation(len(row))
        return Exposure(
            bare=self._nearest(self._rows, row),
            rotated=self._nearest(self._rows @ rotation, row @ rotation),
            encrypted=self._nearest(self._rows, _as_row(ciphertext, len(row))),
        )

    def _nearest(self, rows: Rows, row: Rows) -> tuple[Neighbour, ...]:
        cosines = rows @ row
        order = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
        return tuple(Neighbour(self._texts[index], float(cosines[index])) for index in order)


def _unit(rows: Rows) -> Rows:
    unit: Rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _rotation(dimension: int) -> Rows:
    """Return a random rotation (with reflections), shape (d, d), from the operating system's randomness."""
    raw = np.frombuffer(secrets.token_bytes(2 * 4 * dimension * dimension), np.uint32).reshape(2, dimension, dimension)
    uniform = (raw.astype(np.float64) + 0.5) / 2**_BITS
    gaussian = np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * np.pi * uniform[1])
    rotation, triangle = np.linalg.qr(gaussian)
    signed: Rows = rotation * np.sign(np.diag(triangle))
    return signed


def _as_row(ciphertext: bytes, dimension: int) -> Rows:
    """Return the end of a ciphertext as a row of length 1: four bytes a number."""
    raw = ciphertext[-4 * dimension :].rjust(4 * dimension, b"\0")
    numbers = np.frombuffer(raw, np.uint32).astype(np.float64)
    row: Rows = _unit((numbers - numbers.mean())[None])[0]
    return row
