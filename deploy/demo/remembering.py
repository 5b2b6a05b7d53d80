"""An encoder that embeds every text once: what is asked for again is remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sealign.encoders import Embeddings, Encoder, EncoderCard


class RememberingEncoder:
    """Wraps an encoder; its memory grows with the number of different texts."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._rows: dict[str, NDArray[np.float32]] = {}

    @property
    def card(self) -> EncoderCard:
        """The wrapped encoder's card."""
        return self._encoder.card

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        """Embeddings, shape (n, d), in the order of the texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        self._rows.update(zip(new, self._encoder.encode(new, progress=progress), strict=True))
        return np.array([self._rows[text] for text in texts], np.float32).reshape(-1, self.card.dimension)
