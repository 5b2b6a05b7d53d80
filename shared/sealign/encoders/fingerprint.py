"""The fingerprint of an encoder: SHA-256 of all that decides its embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import chain

from sealign.encoders.settings import EncoderSettings

_FORMAT = b"sealign encoder fingerprint 1"


def fingerprint(
    settings: EncoderSettings,
    *,
    max_length: int,
    description: Mapping[str, object],
    contents: Iterable[tuple[str, bytes | memoryview]],
) -> str:
    """Hash an encoder to 64 hexadecimal digits.

    Every item goes in with its length, so that no two encoders share one byte stream. Where the
    model lies, and how its files are divided, has no part in it.

    Args:
        settings: of these, the family, the pooling and the norm count.
        max_length: the number of tokens that are truly read.
        description: what else makes the function, as values that JSON can carry.
        contents: weights and tokenizer, each under a name, in an order of their own.
    """
    head = {
        "family": settings.family,
        "pooling": settings.pooling,
        "normalise": settings.normalise,
        "max_length": max_length,
        **description,
    }
    digest = hashlib.sha256(_FORMAT)
    described = json.dumps(head, sort_keys=True, default=str).encode()
    for name, content in chain([("description", described)], contents):
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()
