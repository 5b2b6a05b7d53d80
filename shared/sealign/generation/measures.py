"""How well mapped states speak for the silo's own: agreement of next tokens, and perplexity of real text."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError

if TYPE_CHECKING:
    from sealign.encoders.causal import OutputHead
    from sealign.encoders.tokenizer import CausalTokenizer, Ids

Predictor: TypeAlias = Callable[[NDArray[np.intp]], NDArray[np.float64]]
"""Gives, for some rows (m,), natural logarithms of probabilities of the silo's tokens, (m, V)."""

_CHUNK = 128
"""Rows whose logits are in memory at once."""
_FIRST = 5


@dataclass(frozen=True)
class Agreement:
    """A prediction of the silo's tokens, as from mapped states, against the silo's own.

    Attributes:
        positions: rows measured, each with a token that follows in the text.
        top1: share of rows where both find the same token likeliest.
        top5: share of rows where the silo's likeliest token is among the five likeliest of the other prediction.
        own_perplexity: of the tokens that follow, by the silo's own states.
        perplexity: the same by the other prediction.
        divergence: mean Kullback-Leibler divergence from the own to the other distribution, nats a token.
    """

    positions: int
    top1: float
    top5: float
    own_perplexity: float
    perplexity: float
    divergence: float

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity by the other prediction over the silo's own; 1 where nothing is lost."""
        return self.perplexity / self.own_perplexity


def measure_agreement(
    head: OutputHead, mapped: NDArray[np.float64], own: NDArray[np.floating], following: Ids
) -> Agreement:
    """Measure one head on mapped and own states.

    Args:
        head: the silo's.
        mapped: the client's states behind the map, (n, t).
        own: the silo's, (n, t).
        following: (n,), the token that follows in the text; rows with −1 have none and are left out.

    Raises:
        InvalidInputError: different numbers of rows, or none with a token that follows.
    """
    if not len(mapped) == len(own):
        raise InvalidInputError(f"{len(mapped)} mapped rows and {len(own)} own ones differ")
    return measure_predictions(predictor(head, own), predictor(head, mapped), own, following)


def predictor(head: OutputHead, states: NDArray[Any]) -> Predictor:
    """Return what a head predicts from states (n, t), as `measure_predictions` takes it."""
    return lambda rows: log_softmax(head.logits(states[rows]))


def measure_predictions(own: Predictor, other: Predictor, rows: Sized, following: Ids) -> Agreement:
    """Measure any prediction of the silo's tokens against its own.

    Args:
        own: the silo's.
        other: the one to measure.
        rows: as many as both know.
        following: as for :func:`measure_agreement`.

    Raises:
        InvalidInputError: different numbers of rows, or none with a token that follows.
    """
    if len(rows) != len(following):
        raise InvalidInputError(f"{len(rows)} rows and {len(following)} tokens differ")
    counted = np.flatnonzero(following >= 0)
    if not len(counted):
        raise InvalidInputError("no row has a token that follows; give longer texts")
    sums = np.zeros(5)
    for start in range(0, len(counted), _CHUNK):
        some = counted[start : start + _CHUNK]
        p, q = own(some), other(some)
        at = np.arange(len(some))
        likeliest, wanted = p.argmax(axis=1), following[some]
        scores = q[at, likeliest][:, None]
        ahead = (q > scores).sum(axis=1)
        ties = q.argmax(axis=1) == likeliest
        sums += [
            ties.sum(),
            (ahead < _FIRST).sum(),
            -p[at, wanted].sum(),
            -q[at, wanted].sum(),
            (np.exp(p) * (p - q)).sum(),
        ]
    top1, top5, own_loss, loss, divergence = sums / len(counted)
    return Agreement(
        len(counted), float(top1), float(top5), float(np.exp(own_loss)), float(np.exp(loss)), float(divergence)
    )


def models_agreement(
    client: tuple[OutputHead, CausalTokenizer, NDArray[np.floating]],
    silo: tuple[OutputHead, CausalTokenizer, NDArray[np.floating]],
) -> float:
    """How often two models, unaligned, find the same text likeliest next.

    Two tokens are the same if they write the same text; special tokens are told apart by their spelling.

    Args:
        client: head, tokenizer, and states (n, s).
        silo: the same, states (n, t) row by row after the same text.

    Raises:
        InvalidInputError: no rows, or different numbers of them.
    """
    if len(client[2]) != len(silo[2]) or not len(silo[2]):
        raise InvalidInputError(f"{len(client[2])} and {len(silo[2])} rows cannot be compared")
    mine, theirs = _likeliest_texts(*client), _likeliest_texts(*silo)
    return float(np.mean([a == b for a, b in zip(mine, theirs, strict=True)]))


def _likeliest_texts(head: OutputHead, tokenizer: CausalTokenizer, states: NDArray[np.floating]) -> Sequence[str]:
    spelled = {number: token for token, number in tokenizer.vocabulary.items()}
    chunks = (states[start : start + _CHUNK] for start in range(0, len(states), _CHUNK))
    ids = np.concatenate([head.logits(chunk).argmax(axis=1) for chunk in chunks])
    pieces = tokenizer.pieces
    return [
        pieces[number] if number < len(pieces) and pieces[number] else spelled.get(number, str(number))
        for number in ids.tolist()
    ]


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return natural logarithms of probabilities, (n, V), of logits (n, V)."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
