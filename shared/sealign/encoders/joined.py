"""Two encoders side by side: what one does not see of a text, the other may."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from sealign.encoders.encoder import EmbeddedTexts, EncoderCard, Progress, TextEncoder
from sealign.encoders.settings import LongTexts
from sealign.errors import InvalidInputError


class JoinedEncoder(TextEncoder):
    """Embeddings of two encoders, concatenated: each part has norm 1/√2, so that the whole has norm 1.

    The fingerprint covers both, in their order. Each part reads as much of a text as its own window holds.

    Args:
        parts: two encoders that normalise.

    Raises:
        InvalidInputError: a part does not normalise, both are the same encoder, or they treat long texts differently.
    """

    def __init__(self, parts: Sequence[TextEncoder]) -> None:
        self._parts = tuple(parts)
        cards = [part.card for part in self._parts]
        for number, card in enumerate(cards, start=1):
            if not card.normalised:
                raise InvalidInputError(
                    f"part {number} of the joined encoder, {card.name}, does not scale its embeddings to norm 1. Drop "
                    "normalise=false."
                )
        if len({card.fingerprint for card in cards}) < len(cards):
            raise InvalidInputError(
                f"both parts of the joined encoder are {cards[0].name} with the same settings. Name one of them alone."
            )
        if len({part.long_texts for part in self._parts}) > 1:
            raise InvalidInputError(
                f"the parts of the joined encoder {' + '.join(card.name for card in cards)} treat long texts "
                "differently. Give both the same long_texts."
            )
        digest = sha256("\n".join(["sealign.joined-encoder/1", *(card.fingerprint for card in cards)]).encode())
        self._card = EncoderCard(
            name=" + ".join(card.name for card in cards),
            dimension=sum(card.dimension for card in cards),
            fingerprint=digest.hexdigest(),
        )
        self.long_texts = self._parts[0].long_texts
        windows = [part.window for part in self._parts if part.window is not None]
        self.window = min(windows, default=None)
        self.pooling = " + ".join(part.pooling for part in self._parts if part.pooling)
        self.remarks = tuple(remark for part in self._parts for remark in part.remarks)

    @property
    def card(self) -> EncoderCard:
        return self._card

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how long texts are to the first part."""
        return self._parts[0].lengths(texts)

    def _embed(self, texts: list[str], long_texts: LongTexts, progress: Progress) -> EmbeddedTexts:
        shared = _SharedProgress(progress, len(self._parts))
        # The smallest window first: what it refuses is refused before the others have worked.
        order = sorted(self._parts, key=lambda part: part.window or sys.maxsize)
        embedded = {id(part): part.embed(texts, long_texts=long_texts, progress=shared) for part in order}
        found = [embedded[id(part)] for part in self._parts]
        rows = np.concatenate([part.rows for part in found], axis=1) / np.float32(np.sqrt(len(found)))
        return EmbeddedTexts(rows, tuple(sorted({row for part in found for row in part.long})), long_texts)


class _SharedProgress:
    """Reports a text once, when as many as it have been embedded by all parts together."""

    def __init__(self, progress: Progress, parts: int) -> None:
        self._progress, self._parts = progress, parts
        self._done = self._reported = 0

    def __call__(self, count: int) -> None:
        self._done += count
        whole = self._done // self._parts
        if whole > self._reported:
            self._progress(whole - self._reported)
            self._reported = whole
