"""Hidden states of client and silo over public texts, row by row the same reading: what a map is learned from.

There is one row for each token of the silo's, so which rows there are depends on the silo's tokenizer alone; the
client, which needs that tokenizer anyhow to write the silo's tokens, gives its own state for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import RidgeStatistics
from sealign.encoders import Embeddings
from sealign.encoders.tokenizer import CausalTokenizer, Ids, Tokens
from sealign.errors import InvalidInputError
from sealign.generation.positions import Indices, match_positions

if TYPE_CHECKING:
    from sealign.encoders.causal import CausalModel

TOKENS_PER_TEXT = 256
"""Of the silo's tokens, the first so many of each public text give rows."""


@dataclass(frozen=True, eq=False)
class SiloRows:
    """The silo's side of one text.

    Attributes:
        states: (k, d), its final hidden states, one row for each token after which whole characters have been read.
        following: (k,), the token that comes next in the text; -1 after the last one.
    """

    states: Embeddings
    following: Ids


def counted(tokens: Tokens) -> Indices:
    """Which of the silo's tokens of one text give rows: the last one at each end, among the first 256."""
    ends = tokens.ends[:TOKENS_PER_TEXT]
    return match_positions(ends, ends).silo


def row_counts(tokenizer: CausalTokenizer, texts: Iterable[str], window: int | None = None) -> list[int]:
    """Return how many rows each text gives, which no model is needed for.

    Args:
        tokenizer: the silo's.
        texts: the public ones.
        window: tokens that the silo's model reads of a text; None for enough.
    """
    read = (tokenizer.encode(text) for text in texts)
    return [len(counted(Tokens(tokens.ids[:window], tokens.offsets[:window]))) for tokens in read]


def silo_rows(
    model: CausalModel, texts: Iterable[str], *, progress: Callable[[int], None] | None = None
) -> Iterator[SiloRows]:
    """The silo's rows of each text in turn.

    Raises:
        InvalidInputError: as `CausalModel.states`.
    """
    for read in model.states(texts, most=TOKENS_PER_TEXT + 1, progress=progress):
        rows = counted(read.tokens)
        following = np.append(read.tokens.ids, -1)[rows + 1]
        yield SiloRows(read.states[rows], following)


def client_rows(
    model: CausalModel,
    silo: CausalTokenizer,
    texts: Iterable[str],
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Embeddings]:
    """The client's rows of each text in turn, (k, d), as its model sends them: row by row those of `silo_rows`.

    Each has read exactly as much as the silo's, the text so far being tokenised anew, as it is in generation. A state
    after the token that covers the silo's end would know a bit more than those of generation: small models with
    different tokenizers then have perplexity 1.30 times the silo's own instead of 1.19.

    Args:
        model: the client's.
        silo: the silo's tokenizer.
        texts: the same as the silo's.
        progress: told, after each text, how many rows it gave.

    Raises:
        InvalidInputError: as `CausalModel.states`, or a text is longer than the client's model reads.
    """
    for number, text in enumerate(texts):
        tokens = silo.encode(text)
        ends = tokens.ends[counted(tokens)]
        rows = model.sent(_states_at(model, text, ends, number))
        yield rows
        if progress is not None:
            progress(len(rows))


def add_rows(statistics: RidgeStatistics, client: Iterable[Embeddings], silo: Iterable[SiloRows]) -> None:
    """Stream both sides' rows, text by text, into ridge statistics; memory does not grow with the number of texts.

    Raises:
        InvalidInputError: the sides have different numbers of texts or rows: they read different texts, or the client
            used another tokenizer than the silo's.
    """
    try:
        for x, y in zip(client, silo, strict=True):
            statistics.update(x, y.states)
    except ValueError as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError("client and silo have different numbers of public texts; use the same set") from error


def _states_at(model: CausalModel, text: str, ends: NDArray[np.int64], number: int) -> Embeddings:
    """States after the characters up to each end, which rise, were read: (k, d)."""
    tokens = model.tokenizer.encode(text[: ends[-1]])
    match = match_positions(tokens.ends, ends)
    if len(tokens) + len(model.tokenizer.prefix) > model.card.window or len(match) < len(ends):
        raise InvalidInputError(
            f"text {number} has more tokens than {model.card.name} reads ({model.card.window}); split it"
        )
    # Before any but spaces were read, the covering token has to do.
    again = [row for row in np.flatnonzero(~match.exact) if not text[: ends[row]].isspace()]
    states, anew = model.states_beside(tokens, [text[: ends[row]] for row in again])
    rows = states[match.client]
    if again:
        rows[again] = anew
    return rows
