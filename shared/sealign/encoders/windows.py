"""Which tokens of a text a model with a limited window reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.encoders.settings import LongTexts

Positions: TypeAlias = NDArray[np.int64]
Tokens: TypeAlias = dict[str, NDArray[np.int64]]
"""A text's numbers, by the model's input."""

_OVERLAP = 4
"""Neighbouring windows of a split text share at least one token in this many."""


@dataclass(frozen=True)
class Window:
    """The frame in which a model reads a text.

    Attributes:
        size: maximum number of tokens, those around the text included.
        before: tokens that the tokenizer puts before a text.
        after: tokens that it puts behind.
        prompt: tokens of the prompt, at the text's start.
        keep_end: truncation drops the start of a text instead of its end.
    """

    size: int
    before: int
    after: int
    prompt: int = 0
    keep_end: bool = False

    def pieces(self, tokens: int, long_texts: LongTexts) -> list[Positions]:
        """The token positions to read of a text of so many tokens, one array per pass through the model.

        A truncated text is one piece of ``size`` tokens. A split text is several of that size, evenly spaced, that
        together cover the text; each repeats the tokens around the text, and the prompt.
        """
        positions = np.arange(tokens)
        if tokens <= self.size:
            return [positions]
        end = tokens - self.after
        if long_texts == "truncate":
            room = self.size - self.before - self.after
            body = positions[end - room : end] if self.keep_end else positions[self.before : self.before + room]
            return [np.concatenate([positions[: self.before], body, positions[end:]])]
        start = self.before + self.prompt
        room = self.size - start - self.after
        count = -(-(end - start - room) // max(1, room - room // _OVERLAP)) + 1
        starts = np.linspace(start, end - room, count).round().astype(np.int64)
        return [np.concatenate([positions[:start], positions[at : at + room], positions[end:]]) for at in starts]
