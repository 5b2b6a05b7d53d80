"""What may go into an encoder and what may come out, the same for every family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError

MAX_CHARACTERS = 1_000_000
_SURROGATE = re.compile("[\ud800-\udfff]")


def as_texts(texts: Iterable[str]) -> list[str]:
    """Return any iterable of strings as a list in its own order, once every text is known to be embeddable.

    A pandas Series counts by position, whatever its index.

    Raises:
        InvalidInputError: one string, a mapping, a set, a table; or a text that no encoder can embed, named by its
            number from 1 and never quoted.
    """
    if isinstance(texts, str | bytes):
        raise InvalidInputError("texts is a single string; pass a list of strings")
    if isinstance(texts, Mapping | Set) or getattr(texts, "ndim", 1) != 1:
        raise InvalidInputError(
            f"texts is a {type(texts).__name__}, which has no one order of texts; pass a list of strings, or one column"
        )
    try:
        items: list[Any] = list(texts)
    except TypeError:
        raise InvalidInputError(f"texts is {type(texts).__name__}, not a list of strings; pass a list") from None
    return [_checked(text, number) for number, text in enumerate(items, 1)]


def _checked(text: Any, number: int) -> str:
    if not isinstance(text, str):
        raise InvalidInputError(f"text {number} is {type(text).__name__}, not str; decode it")
    if len(text) > MAX_CHARACTERS:
        raise InvalidInputError(
            f"text {number} has {len(text):,} characters and at most {MAX_CHARACTERS:,} are "
            "accepted; split or shorten it"
        )
    if not text or text.isspace():
        raise InvalidInputError(f"text {number} is empty or only whitespace; leave it out")
    if _SURROGATE.search(text):
        raise InvalidInputError(
            f"text {number} contains a lone surrogate (a code point in U+D800 to U+DFFF), so it "
            "is not valid Unicode; decode the source with its true encoding"
        )
    return str(text)


def checked_embeddings(
    vectors: NDArray[Any], *, shape: tuple[int, int], normalise: bool, encoder: str
) -> NDArray[np.float32]:
    """Return the output of the model named ``encoder`` as embeddings, of norm 1 if asked.

    Raises:
        InvalidInputError: another shape than promised; a row that is not finite, or has no direction (norm 0) to
            normalise.
    """
    try:
        rows = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"the encoder {encoder} gave no array of numbers; choose another model") from None
    if rows.shape != shape:
        raise InvalidInputError(
            f"the encoder {encoder} gave an array of shape {rows.shape} for {shape[0]} texts and its card promises "
            f"{shape[1]} dimensions; choose another model"
        )
    if normalise:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise InvalidInputError(
            f"the encoder {encoder} gave a vector that is not finite, or is zero, for text {bad[0] + 1} "
            f"({bad.size} of {len(rows)} texts); its weights are damaged or overflow in float32, "
            "so choose another model"
        )
    return np.ascontiguousarray(rows, dtype=np.float32)
