"""The silo's next-token distribution mixed with the client's own, after decryption: the silo sees nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError
from sealign.generation.measures import log_softmax
from sealign.generation.mixture import fit_weight, mixed
from sealign.generation.rewriting import Rewriting
from sealign_client.local.mixtures import StoredMixture
from sealign_client.results import Mixture

if TYPE_CHECKING:
    from sealign.encoders.causal import CausalModel
    from sealign.encoders.tokenizer import CausalTokenizer

_PER_TEXT = 8
"""Positions of one public text: neighbours say less than others do."""


class Mixing:
    """The client's part of a mixture.

    Args:
        model: the client's.
        tokenizer: the silo's.
        counts: how often each of the silo's tokens occurs in public texts, (V,).
        weight: of the client's own distribution.
    """

    def __init__(
        self, model: CausalModel, tokenizer: CausalTokenizer, counts: NDArray[np.uint32], weight: float
    ) -> None:
        self._head = model.head
        self._rewriting = Rewriting(model.tokenizer, tokenizer, counts)
        self._weight = weight

    def own(self, state: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-probabilities of the silo's tokens by the client's own model, (V,), after a final state (d,)."""
        found: NDArray[np.float64] = self._rewriting.log_probabilities(self._head.logits(state[None]))[0]
        return found

    def mixed(self, logits: NDArray[Any], state: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-probabilities of the mixture, (V,): of the silo's logits (V,) and the client's own."""
        return mixed(log_softmax(logits[None])[0], self.own(state), self._weight)


@dataclass(frozen=True, eq=False)
class Positions:
    """Some positions of public texts.

    Attributes:
        rows: as the client's model sends them, (n, d).
        states: its final hidden states, (n, hidden).
        following: the silo's token that comes next, (n,).
    """

    rows: NDArray[np.float32]
    states: NDArray[np.float32]
    following: NDArray[np.int64]


def spread_positions(model: CausalModel, tokenizer: CausalTokenizer, texts: Sequence[str], count: int) -> Positions:
    """Return ``count`` positions spread evenly over texts, eight per text or more if there are too few texts.

    Raises:
        InvalidInputError: the texts have fewer positions that a token follows.
    """
    from sealign.generation.states import client_rows, counted

    wanted = min(len(texts), -(-count // _PER_TEXT))
    chosen = [texts[int(at)] for at in np.linspace(0, len(texts) - 1, wanted)]
    rows, following = [], []
    for text, own in zip(chosen, client_rows(model, tokenizer, chosen), strict=True):
        tokens = tokenizer.encode(text)
        follows = np.append(tokens.ids, -1)[counted(tokens) + 1]
        has = np.flatnonzero(follows >= 0)
        some = has[np.unique(np.linspace(0, len(has) - 1, -(-count // wanted)).astype(np.intp))] if len(has) else has
        rows.append(own[some])
        following.append(follows[some])
    found = np.concatenate(rows)[:count]
    if len(found) < count:
        raise InvalidInputError(f"The texts have {len(found)} of the {count} positions asked for. Ask for fewer.")
    return Positions(found, found[:, : model.hidden], np.concatenate(following)[:count])


def fitted_mixture(silo: Sequence[float], own: Sequence[float]) -> Mixture:
    """Return the mixture that makes what follows likeliest, from log-probabilities by either side, (n,) each."""
    theirs, mine = np.array(silo), np.array(own)
    weight = fit_weight(theirs, mine)
    perplexities = [float(np.exp(-each.mean())) for each in (mixed(theirs, mine, weight), theirs, mine)]
    return Mixture(weight, len(theirs), *perplexities)


def require_current(stored: StoredMixture | None, map_id: str, tokenizer: str, task: str) -> StoredMixture:
    """Return a mixture that was fitted behind this map.

    Raises:
        InvalidInputError: none was fitted, or it was behind another map or for another model of the silo's.
    """
    if stored is None or (stored.map, stored.tokenizer) != (map_id, tokenizer):
        fitted = "none was fitted" if stored is None else "the fitted one belongs to an earlier map"
        raise InvalidInputError(
            f"Generation task {task} has no mixture for map {map_id[:12]}: {fitted}. Run sealign align --generation "
            f"{task} --public FILE --mixture-positions 128, or generate without a mixture."
        )
    return stored
