"""Positions of two tokenizers over one text, matched by the characters that tokens end at.

Source: Gorbett and Jana, "Secure Linear Alignment of Large Language Models", arXiv 2603.18908 (generation across
models whose tokenizers differ).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Match:
    """For m of the silo's tokens, in order, the client's token after which the same text has been read, or a bit more.

    Attributes:
        client: (m,), positions in the client's tokens; never falling.
        silo: (m,), positions in the silo's tokens; rising.
        exact: (m,), whether both tokens end at the same character. Where not, the client's has read further: its
            state knows characters that the silo's next token may be about to write.
    """

    client: Indices
    silo: Indices
    exact: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.silo)

    def only(self, keep: NDArray[np.bool_]) -> Match:
        """The pairs that a mask (m,) keeps."""
        return Match(self.client[keep], self.silo[keep], self.exact[keep])


def match_positions(client_ends: NDArray[np.int64], silo_ends: NDArray[np.int64]) -> Match:
    """Pair each of the silo's tokens with the client's first one whose end covers its end.

    Of several tokens that end at one character (bytes of a character that no token holds whole), the last one counts:
    only then has it been read. The silo's tokens behind the client's last one, which was cut, have no partner.

    Args:
        client_ends: (n,), characters read up to and with each of the client's tokens; never falling.
        silo_ends: (k,), the same of the silo's.
    """
    silo = _last_at_each_end(silo_ends)
    last = _last_at_each_end(client_ends)
    ends = client_ends[last]
    covering = np.searchsorted(ends, silo_ends[silo], side="left")
    found = covering < len(ends)
    client = last[covering[found]]
    silo = silo[found]
    return Match(client, silo, client_ends[client] == silo_ends[silo])


def _last_at_each_end(ends: NDArray[np.int64]) -> Indices:
    """Positions of the last token at each distinct end, rising."""
    return np.flatnonzero(np.append(ends[1:] != ends[:-1], True)) if len(ends) else np.empty(0, dtype=np.intp)
