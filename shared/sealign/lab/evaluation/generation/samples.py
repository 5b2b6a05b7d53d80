"""What a pair writes: samples, and how much they repeat themselves."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from numpy.typing import NDArray

from sealign.alignment import AffineMap
from sealign.encoders import Embeddings
from sealign.encoders.causal import CausalModel
from sealign.generation import Sampler, Sampling
from sealign.generation.repetition import distinct, has_loop
from sealign.generation.whitening import Whitening
from sealign.lab.evaluation.generation.pair import Pair
from sealign.lab.evaluation.generation_results import Repetition, Sample

_DEFAULT, _FREE = Sampling(), Sampling(no_repeat_run=0)

Written = tuple[str, list[int]]


def samples(
    pair: Pair, learned: AffineMap, whitening: Whitening | None
) -> tuple[tuple[Sample, ...], Repetition | None]:
    """Return what the silo's own model, and its head behind a map, make of the spec's prompts."""
    prompts = pair.spec.prompts
    if not prompts:
        return (), None
    own, mapped = (
        {how: [_written(pair, text, heard, how) for text in prompts] for how in (_DEFAULT, _FREE)}
        for heard in (_Heard(pair.silo), _Heard(pair.client, learned, whitening))
    )
    shown = zip(prompts, own[_DEFAULT], mapped[_DEFAULT], strict=True)
    repetition = Repetition(
        tokens=pair.spec.tokens,
        texts=len(prompts),
        own_distinct=_distinct(own[_DEFAULT]),
        mapped_distinct=_distinct(mapped[_DEFAULT]),
        own_loops=_loops(own[_DEFAULT]),
        mapped_loops=_loops(mapped[_DEFAULT]),
        free_own_distinct=_distinct(own[_FREE]),
        free_mapped_distinct=_distinct(mapped[_FREE]),
        free_own_loops=_loops(own[_FREE]),
        free_mapped_loops=_loops(mapped[_FREE]),
    )
    return tuple(Sample(prompt=prompt, own=a[0], mapped=b[0]) for prompt, a, b in shown), repetition


def _distinct(written: list[Written]) -> float:
    return fmean(distinct(tokens) for _, tokens in written)


def _loops(written: list[Written]) -> int:
    return sum(has_loop(tokens) for _, tokens in written)


@dataclass(frozen=True, eq=False)
class _Heard:
    """A model whose states the silo's head hears: its own, or the client's behind a map."""

    model: CausalModel
    map: AffineMap | None = None
    whitening: Whitening | None = None

    def states(self, state: Embeddings) -> NDArray[Any]:
        """What the head gets, (1, t), of a final hidden state of the model's, (1, d)."""
        if self.map is None:
            return state
        sent = self.model.sent(state)
        return self.map.apply(sent if self.whitening is None else self.whitening.apply(sent))


def _written(pair: Pair, prompt: str, heard: _Heard, sampling: Sampling) -> Written:
    """Return a greedy text by the silo's head, and its tokens."""
    silo, text, tokens = pair.silo, prompt, list[int]()
    seen = silo.tokenizer.encode(prompt).ids.tolist()
    sampler = Sampler(sampling, silo.tokenizer.allowed(silo.card.vocabulary), seen)
    session = heard.model.session()
    for _ in range(pair.spec.tokens):
        logits = silo.head.logits(heard.states(session.advance(text)[None]))[0]
        choice = sampler.choose(logits).id
        if choice in silo.tokenizer.ends:
            break
        tokens.append(choice)
        text += silo.tokenizer.pieces[choice]
    return " ".join(text[len(prompt) :].split()), tokens
