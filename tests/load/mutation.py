"""Mutations of real messages: of their bytes, and of the fields that they are made of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_WIRE_TYPES = 8


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    encoded = b""
    while value >= 0x80:
        encoded, value = encoded + bytes([value & 0x7F | 0x80]), value >> 7
    return encoded + bytes([value])


class Mutator:
    """Makes messages of a corpus worse, reproducibly.

    Args:
        corpus: real messages.
        seed: of all that is drawn.
    """

    def __init__(self, corpus: Sequence[bytes], seed: int) -> None:
        self._corpus = corpus
        self._random = random.Random(seed)
        self._kinds: tuple[Callable[[bytearray], None], ...] = (
            self._flip, self._set, self._cut, self._repeat, self._insert_field, self._insert_number, self._splice,
            self._near_start,
        )  # fmt: skip

    def mutated(self, message: bytes) -> bytes:
        """Return a message with one to four mutations."""
        content = bytearray(message)
        for _ in range(self._random.randint(1, 4)):
            self._random.choice(self._kinds)(content)
        return bytes(content)

    def _place(self, content: bytearray) -> int:
        return self._random.randrange(len(content) + 1)

    def _flip(self, content: bytearray) -> None:
        if content:
            content[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)

    def _set(self, content: bytearray) -> None:
        if content:
            content[self._random.randrange(len(content))] = self._random.choice((0, 1, 0x7F, 0x80, 0xFF))

    def _near_start(self, content: bytearray) -> None:
        """Headers and lengths are there, which most of a long message is not."""
        if content:
            content[self._random.randrange(min(64, len(content)))] = self._random.randrange(256)

    def _cut(self, content: bytearray) -> None:
        start = self._place(content)
        del content[start : start + self._random.choice((1, 2, 4, 8, 16, 1 << 12, 1 << 20))]

    def _repeat(self, content: bytearray) -> None:
        start = self._place(content)
        piece = bytes(content[start : start + self._random.randint(1, 64)])
        content[start:start] = piece * self._random.choice((1, 2, 16))

    def _insert_field(self, content: bytearray) -> None:
        """A field of any number and type, whole or with a length that lies."""
        key = varint(self._random.randint(0, 20) << 3 | self._random.randrange(_WIRE_TYPES))
        length = self._random.choice((0, 1, 8, 32))
        said = self._random.choice((length, *_NUMBERS))
        at = self._place(content)
        content[at:at] = key + varint(said) + self._random.randbytes(length)

    def _insert_number(self, content: bytearray) -> None:
        at = self._place(content)
        content[at:at] = varint(self._random.choice(_NUMBERS))

    def _splice(self, content: bytearray) -> None:
        other = self._random.choice(self._corpus)
        start = self._random.randrange(len(other) + 1)
        at = self._place(content)
        content[at:at] = other[start : start + self._random.choice((4, 64, 1024, len(other)))]
        del content[1 << 17 :]
