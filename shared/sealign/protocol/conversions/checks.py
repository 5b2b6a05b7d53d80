"""Bounds of what a peer may send in a card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite

from sealign.errors import InvalidInputError

DIGEST = re.compile(r"[0-9a-f]{64}")
CONTENT_ID = re.compile(r"[0-9a-f]{32}")
MAX_NAME = 256
MAX_DESCRIPTION = 4096
MAX_LABELS = 1 << 16
MAX_CARDS = 1024
MAX_TEXT = 1_000_000


def bounded_text(text: str, name: str, limit: int = MAX_NAME) -> str:
    """Return a text of the peer's that is short enough to keep.

    Raises:
        InvalidInputError: it has more than ``limit`` characters.
    """
    if len(text) > limit:
        raise InvalidInputError(f"the {name} has {len(text)} characters, more than the {limit} that are accepted")
    return text


def bounded_count(items: Sequence[object], name: str, limit: int = MAX_CARDS) -> None:
    """Refuse a list of the peer's that is too long, before anything is made of it.

    Raises:
        InvalidInputError: it has more than ``limit`` items.
    """
    if len(items) > limit:
        raise InvalidInputError(f"{len(items)} {name} are more than the {limit} that are accepted")


def digest(value: str, name: str) -> str:
    """Return a SHA-256 digest in hexadecimal.

    Raises:
        InvalidInputError: it is not one.
    """
    if not DIGEST.fullmatch(value):
        raise InvalidInputError(f"the {name} must be a SHA-256 digest: 64 hexadecimal digits, lower case")
    return value


def content_id(value: str, name: str) -> str:
    """Return the name of a content-addressed value.

    Raises:
        InvalidInputError: it is not one.
    """
    if not CONTENT_ID.fullmatch(value):
        raise InvalidInputError(f"the {name} must be 32 hexadecimal digits, lower case")
    return value


def finite(value: float, name: str) -> float:
    """Return a finite number.

    Raises:
        InvalidInputError: it is NaN or infinite.
    """
    if not isfinite(value):
        raise InvalidInputError(f"the {name} is not a finite number")
    return value
