"""What may go into an encoder and what may come out, the same for every family."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sealign.encoders.encoder import Embeddings
from sealign.errors import InvalidInputError

MAX_CHARACTERS = 1_000_000
_CHARACTERS_PER_TOKEN = 32  # natural text has 1 to 6
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what no encoder can embed, before any work is done.

    Raises:
        InvalidInputError: names the index of the first such text, and never quotes it.
    """
    if isinstance(texts, str):
        raise InvalidInputError("texts is a single string; pass a list of strings")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(f"text {index} is {type(text).__name__}, not str; decode it")
        if len(text) > MAX_CHARACTERS:
            raise InvalidInputError(
                f"text {index} has {len(text):,} characters and at most {MAX_CHARACTERS:,} are "
                "accepted; split or shorten it"
            )
        if not text or text.isspace():
            raise InvalidInputError(f"text {index} is empty or only whitespace; leave it out")
        if _SURROGATE.search(text):
            raise InvalidInputError(
                f"text {index} contains a lone surrogate (a code point in U+D800 to U+DFFF), so it "
                "is not valid Unicode; decode the source with its true encoding"
            )


def cut(text: str, max_length: int) -> str:
    """Drop the characters that ``max_length`` tokens cannot reach, so that tokenising stays cheap.

    A text is cut only above 32 characters for each token, and then without its leading
    whitespace, which alone could otherwise fill what is kept.
    """
    limit = max_length * _CHARACTERS_PER_TOKEN
    return text if len(text) <= limit else text.lstrip()[:limit]


def checked_embeddings(vectors: NDArray[np.float32], *, normalise: bool, encoder: str) -> Embeddings:
    """The (n, d) output of the model named ``encoder`` as embeddings, of norm 1 if asked.

    Raises:
        InvalidInputError: a row is not finite, or has no direction (norm 0) to normalise.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if normalise:
            vectors = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise InvalidInputError(
            f"the encoder {encoder} gave a vector that is not finite, or is zero, for text {bad[0]} "
            f"({bad.size} of {len(vectors)} texts); its weights are damaged or overflow in float32, "
            "so choose another model"
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)
