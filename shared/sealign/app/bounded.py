"""Messages from bytes, in work that no peer can choose: parts are counted before anything is made of them.

Two bytes on the wire are an empty sub-message, which takes some fifty in memory and a microsecond to make. So a message
within a size limit can still be millions of parts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from sealign.errors import InvalidInputError

MAX_PARTS = 1 << 14
"""Fields and sub-messages of one message."""

_PART_BYTES = 2  # at least: a key, and a value or a length
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10

_Message = TypeVar("_Message", bound=Message)


def parse(kind: type[_Message], raw: bytes, most: int = MAX_PARTS) -> _Message:
    """Return the message in ``raw``.

    Raises:
        InvalidInputError: the bytes are no such message, or one of more than ``most`` parts.
    """
    if len(raw) > _PART_BYTES * most:
        _count(raw, kind.DESCRIPTOR, (0, len(raw)), most)
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise _malformed(kind.DESCRIPTOR) from None


def _count(raw: bytes, descriptor: Any, span: tuple[int, int], left: int) -> int:
    """Return how many more parts are allowed after those in a span; stops where there are too many."""
    branches = _branches(descriptor)
    position, end = span
    while position < end:
        left -= 1
        if left < 0:
            raise InvalidInputError(
                "the message has too many parts; no plan and no request of this silo asks for so many"
            )
        key, position = _varint(raw, position, end, descriptor)
        wire = key & 7
        if wire == _VARINT:
            _, position = _varint(raw, position, end, descriptor)
        elif wire == _BYTES:
            length, position = _varint(raw, position, end, descriptor)
            branch = branches.get(key >> 3)
            if branch is not None and position + length <= end:
                left = _count(raw, branch, (position, position + length), left)
            position += length
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise _malformed(descriptor)
    if position != end:
        raise _malformed(descriptor)
    return left


@lru_cache(maxsize=256)
def _branches(descriptor: Any) -> dict[int, Any]:
    """Return the sub-messages that can have parts worth counting, by field number."""
    found: dict[int, Any] = {}
    for field in descriptor.fields:
        kind: Any = field.message_type
        if kind is not None and any(part.message_type is not None or part.is_repeated for part in kind.fields):
            found[field.number] = kind
    return found


def _varint(raw: bytes, position: int, end: int, descriptor: Any) -> tuple[int, int]:
    value = 0
    for index in range(min(_VARINT_BYTES, end - position)):
        byte = raw[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise _malformed(descriptor)


def _malformed(descriptor: Any) -> InvalidInputError:
    return InvalidInputError(
        f"the bytes are no {descriptor.name}: Error parsing message. Use the contract that the silo publishes."
    )
