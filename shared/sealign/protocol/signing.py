"""What a silo signs with its key: cards in their canonical form, and the change from one key to the next.

`proto/PROTOCOL.md`, section 9, specifies both for other implementations; `tests/vectors/signatures.json` has examples.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

KEY_BYTES = 32
MAX_KEY_CHANGES = 64
_CARD, _CHANGE = b"sealign card v1\0", b"sealign signing key v1\0"
_WHOLE = b"sealign whole card v1\0"
_SIGNATURE = "signature"
_FIRST_FIELDS: Mapping[str, int] = MappingProxyType({"sealign.v1.TaskCard": 15})
"""Number of the last field that earlier versions know, of cards that have gained fields since."""


class Signer(Protocol):
    """Signs with the silo's present key."""

    def sign(self, content: bytes) -> tuple[bytes, bytes]:
        """Return the public key, 32 bytes, and its Ed25519 signature of the content, 64 bytes."""


@dataclass(frozen=True)
class KeyChange:
    """One signing key took the place of another.

    Attributes:
        before, after: public keys, 32 bytes each.
        signature: of the key before, over both.
    """

    before: bytes
    after: bytes
    signature: bytes

    @property
    def is_valid(self) -> bool:
        """Whether the key before has signed this change."""
        return is_signed(self.before, self.signature, key_change_content(self.before, self.after))


def key_change_content(before: bytes, after: bytes) -> bytes:
    """Return what the key before signs when another takes its place."""
    return _CHANGE + before + after


def keys_after(key: bytes, changes: Iterable[KeyChange]) -> frozenset[bytes]:
    """Return a key and all that came after it, each by a change that the key before has signed."""
    valid = [change for change in changes if change.is_valid]
    found, grown = frozenset[bytes](), frozenset({key})
    while grown != found:
        found, grown = grown, grown | {change.after for change in valid if change.before in grown}
    return found


def is_signed(key: bytes, signature: bytes, content: bytes) -> bool:
    """Return whether an Ed25519 signature of some content is a key's."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def sign_card(card: Message, asked: Message, signer: Signer) -> None:
    """Set the signature of a card.

    Args:
        card: message with a field `signature`.
        asked: what the card answers, so that it cannot be shown for another question.
        signer: the silo's.
    """
    signature = card.signature  # type: ignore[attr-defined]
    contents = [signed_content(card, asked)]
    if _has_gained(card):
        contents.append(signed_content(card, asked, whole=True))
    signed = [signer.sign(content) for content in contents]
    if len({key for key, _ in signed}) > 1:  # the key has just changed
        signed = [signer.sign(content) for content in contents]
    signature.key, signature.value = signed[0]
    if _has_gained(card):
        signature.whole = signed[1][1]


def is_card_signed(card: Message, asked: Message) -> bool:
    """Return whether a card is signed by the key that it names; which key that is, is not looked at."""
    signature = card.signature  # type: ignore[attr-defined]
    return is_signed(signature.key, signature.value, signed_content(card, asked)) and (
        not _has_gained(card) or is_signed(signature.key, signature.whole, signed_content(card, asked, whole=True))
    )


def signed_content(card: Message, asked: Message, *, whole: bool = False) -> bytes:
    """Return what the signature of a card is of: the fields that every version knows, or the whole card."""
    last = None if whole else _FIRST_FIELDS.get(card.DESCRIPTOR.full_name)
    parts = [_WHOLE if whole else _CARD]
    _add_text(parts, asked.DESCRIPTOR.full_name)
    _add_message(parts, asked)
    _add_text(parts, card.DESCRIPTOR.full_name)
    _add_fields(
        parts,
        [
            (field, value)
            for field, value in card.ListFields()
            if field.name != _SIGNATURE and (last is None or field.number <= last)
        ],
    )
    return b"".join(parts)


def _has_gained(card: Message) -> bool:
    """Whether a field is set that earlier versions do not know."""
    last = _FIRST_FIELDS.get(card.DESCRIPTOR.full_name)
    return last is not None and any(field.number > last for field, _ in card.ListFields())


def _add_message(parts: list[bytes], message: Message) -> None:
    _add_fields(parts, message.ListFields())


def _add_fields(parts: list[bytes], present: Sequence[tuple[FieldDescriptor, Any]]) -> None:
    """Append the fields that are set, in the order of their numbers."""
    parts.append(_COUNT(len(present)))
    for field, value in present:
        parts.append(_COUNT(field.number))
        add = _ADD[field.type]
        if field.is_repeated:
            parts.append(_COUNT(len(value)))
            for item in value:
                add(parts, item)
        else:
            add(parts, value)


def _add_text(parts: list[bytes], text: str) -> None:
    _add_bytes(parts, text.encode())


def _add_bytes(parts: list[bytes], content: bytes) -> None:
    parts += (_COUNT(len(content)), content)


def _packing(form: str) -> Callable[[list[bytes], Any], None]:
    pack = struct.Struct(form).pack
    return lambda parts, value: parts.append(pack(value))


_COUNT = struct.Struct("<I").pack
_ADD: Mapping[int, Callable[[list[bytes], Any], None]] = MappingProxyType(
    {
        FieldDescriptor.TYPE_BOOL: _packing("<?"),
        FieldDescriptor.TYPE_UINT32: _packing("<Q"),
        FieldDescriptor.TYPE_UINT64: _packing("<Q"),
        FieldDescriptor.TYPE_DOUBLE: _packing("<d"),
        FieldDescriptor.TYPE_STRING: _add_text,
        FieldDescriptor.TYPE_BYTES: _add_bytes,
        FieldDescriptor.TYPE_MESSAGE: _add_message,
    }
)
