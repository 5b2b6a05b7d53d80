"""A causal model's next-token distribution as a distribution over another model's tokens, through the text they write.

A client knows its own model's distribution for free. Rewritten as the silo's tokens, it is the control for generation
across models: what the client could do without any silo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError

if TYPE_CHECKING:
    from sealign.encoders.tokenizer import CausalTokenizer

FLOOR = 0.01
"""Share of the silo's token frequencies in each rewritten distribution, so that no token is impossible."""

_UNSEEN = 0.1
"""What a token counts beside the times that it is seen."""


class Rewriting:
    """Rewrites the distributions of one model as tokens of another.

    A token of the client's whose text begins a token of the silo's, or is one, gives its probability to those of the
    silo's tokens of which it is the longest beginning that the client has, by their frequencies. All other tokens give
    it to the silo's longest token that begins them. Tokens that end a text go to one another. One step of the client's
    model is rewritten: what follows inside a longer token of the silo's comes from frequencies, not from the model.

    Args:
        client: the client's tokenizer.
        silo: the silo's.
        counts: how often each of the silo's tokens occurs, (V,), as `token_counts` gives it.

    Raises:
        InvalidInputError: fewer counts than the silo's tokenizer has tokens.
    """

    def __init__(self, client: CausalTokenizer, silo: CausalTokenizer, counts: NDArray[np.uint32]) -> None:
        outputs = len(counts)
        silo.allowed(outputs)  # refuses a head of another model
        seen = counts + _UNSEEN
        self._frequencies: NDArray[np.float64] = seen / seen.sum()
        self._outputs = outputs
        pairs = np.array(sorted(_pairs(client, silo)), dtype=np.int64).reshape(-1, 2)
        self._from, self._to = pairs[:, 0], pairs[:, 1]
        weights = seen[self._to]
        totals = np.bincount(self._from, weights)
        self._shares = weights / totals[self._from]
        self._rewritten = np.unique(self._from)

    def log_probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Rewrite distributions.

        Args:
            logits: of the client's model, (n, its outputs).

        Returns:
            Natural logarithms of probabilities of the silo's tokens, (n, V).

        Raises:
            InvalidInputError: the model has fewer outputs than its tokenizer has tokens.
        """
        if logits.ndim != 2 or logits.shape[1] <= self._rewritten[-1]:
            raise InvalidInputError(f"logits of shape {logits.shape} are not those of the tokenizer's model")
        found = np.empty((len(logits), self._outputs))
        for row, given in enumerate(logits):
            shifted = np.exp(given.astype(np.float64) - given.max())
            moved = np.bincount(self._to, shifted[self._from] * self._shares, self._outputs)
            total = moved.sum()  # nothing where all probability is on tokens that write nothing
            found[row] = self._frequencies if total == 0 else (1 - FLOOR) * moved / total + FLOOR * self._frequencies
        logarithms: NDArray[np.float64] = np.log(found)
        return logarithms


def token_counts(tokenizer: CausalTokenizer, outputs: int, texts: Iterable[str]) -> NDArray[np.uint32]:
    """Count how often each of a model's tokens occurs in texts, (outputs,).

    Raises:
        InvalidInputError: a text that cannot be read, or a head with fewer outputs than the tokenizer has tokens.
    """
    tokenizer.allowed(outputs)
    counts = np.zeros(outputs, dtype=np.uint32)
    for text in texts:
        np.add.at(counts, tokenizer.encode(text).ids, 1)
    return counts


def _pairs(client: CausalTokenizer, silo: CausalTokenizer) -> set[tuple[int, int]]:
    """Which of the client's tokens give probability to which of the silo's."""
    mine, theirs = _by_text(client.pieces), _by_text(silo.pieces)
    found = {(own, end) for own in client.ends for end in silo.ends}
    for text, ids in theirs.items():
        begun = _longest_beginning(text, mine)
        found.update((own, other) for own in mine.get(begun, ()) for other in ids)
    for text, ids in mine.items():
        begun = _longest_beginning(text, theirs)
        found.update((own, other) for own in ids for other in theirs.get(begun, ()))
    return found


def _by_text(pieces: Sequence[str]) -> dict[str, list[int]]:
    """Return the ids of tokens by the text that they write; those that write none are left out."""
    found: dict[str, list[int]] = {}
    for number, piece in enumerate(pieces):
        if piece:
            found.setdefault(piece, []).append(number)
    return found


def _longest_beginning(text: str, known: Mapping[str, object]) -> str:
    """Return the longest beginning of a text, the whole included, that is known; empty if none is."""
    return next((text[:length] for length in range(len(text), 0, -1) if text[:length] in known), "")
