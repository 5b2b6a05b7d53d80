"""What the client could do without a silo, and what a mixture of both does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sealign.alignment import AffineMap
from sealign.generation import (
    Agreement,
    Predictor,
    Rewriting,
    fit_weight,
    measure_predictions,
    mixed,
    predictor,
    token_counts,
)
from sealign.generation.kl import HELD_OUT
from sealign.lab.evaluation.generation.pair import Pair
from sealign.lab.evaluation.generation.states import States

_FITTED_ON = 256
"""Held-out public positions that the mixture's weight is fitted on; a client asks the silo about that many, roughly."""


class Control:
    """The client's own distribution rewritten as the silo's tokens, alone and mixed with the silo's.

    Args:
        pair: the models, and public texts whose tokens are counted.
        test: positions to measure on.
    """

    def __init__(self, pair: Pair, test: States) -> None:
        counts = token_counts(pair.silo.tokenizer, pair.silo.card.vocabulary, pair.public)
        self._rewriting = Rewriting(pair.client.tokenizer, pair.silo.tokenizer, counts)
        self._client, self._head, self._test = pair.client, pair.silo.head, test

    def alone(self) -> Agreement:
        """Measure the client's own distribution."""
        return self._measured(self._own(self._test))

    def mixture(self, learned: AffineMap, public: States) -> tuple[Agreement, float]:
        """Measure the mixture with what a map gives; also returns the weight, fitted on held-out public positions."""
        held = np.arange(len(public.following) - int(HELD_OUT * len(public.following)), len(public.following))
        held = held[public.following[held] >= 0][-_FITTED_ON:]
        follows = public.following[held]
        some = replace(public, client=public.client[held], final=public.final[held], silo=public.silo[held])
        every = np.arange(len(held))
        silo, own = (found(every)[every, follows] for found in (self._mapped(learned, some), self._own(some)))
        weight = fit_weight(silo, own)
        mapped, mine = self._mapped(learned, self._test), self._own(self._test)
        return self._measured(lambda rows: mixed(mapped(rows), mine(rows), weight)), weight

    def _measured(self, other: Predictor) -> Agreement:
        return measure_predictions(predictor(self._head, self._test.silo), other, self._test.silo, self._test.following)

    def _mapped(self, learned: AffineMap, states: States) -> Predictor:
        return predictor(self._head, learned.apply(states.client))

    def _own(self, states: States) -> Predictor:
        final, head = states.final, self._client.head
        return lambda rows: self._rewriting.log_probabilities(head.logits(final[rows]))
