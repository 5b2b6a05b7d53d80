"""The tables of a report about pairs of causal models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sealign.lab.evaluation.generation_results import GenerationResult, Prediction
from sealign.lab.evaluation.summary import share
from sealign.lab.evaluation.table import Table

MAPS = {"ridge": "ridge", "refined": "KL"}
"""What the maps of a pair for generation are called in reports."""


def predictions(pairs: Sequence[GenerationResult]) -> Table:
    """What the silo's head predicts behind each map."""

    def refined(pair: GenerationResult, value: Callable[[Prediction], str]) -> str:
        return "–" if pair.refined is None else value(pair.refined)

    lines = [
        (
            pair.name, f"{pair.rows:,}", f"{pair.own_perplexity:.1f}", f"{pair.ridge.perplexity:.1f}",
            refined(pair, lambda found: f"{found.perplexity:.1f}"), f"{pair.best.perplexity / pair.own_perplexity:.2f}",
            f"{pair.control.perplexity:.1f}", f"{pair.mixture.perplexity:.1f}", f"{pair.mixture.weight:.2f}",
            _percent(pair.ridge.top1), refined(pair, lambda found: _percent(found.top1)),
            _percent(pair.ridge.top5), refined(pair, lambda found: _percent(found.top5)),
            _percent(pair.own_agreement), share(pair.best.top1 / pair.own_agreement if pair.own_agreement else None),
        )
        for pair in pairs
    ]  # fmt: skip
    return Table(
        "What the silo's head predicts from the client's hidden states behind a map, against what it predicts from its "
        "own model's. Positions are the silo's tokens of public texts over which the map was learned; KL is the map of "
        "ridge regression refined by divergence. Perplexity is of the tokens that follow in test texts; ratio is the "
        "last map's over the silo's own. Client alone is the control: the client's own next-token distribution "
        "rewritten as the silo's tokens through the text that they write, with neither silo nor map. Where it is below "
        "the map's perplexity, the silo alone is worth nothing on these texts. Mixture is of both, at the client, and "
        "its weight the client's share, fitted on held-out public positions. Top-1, in percent: the same token is "
        "likeliest both ways; top-5: the silo's likeliest is among the five likeliest. Own agreement is how often both "
        "models, unaligned, find the same text likeliest; the last column is top-1 as a share of it.",
        ("pair", "positions", "own perplexity", "ridge", "KL", "ratio", "client alone", "mixture", "weight",
         "top-1, ridge", "top-1, KL", "top-5, ridge", "top-5, KL", "own agreement", "top-1 of it"),
        lines,
    )  # fmt: skip


def circumstances(pairs: Sequence[GenerationResult]) -> Table:
    """How alike two models are, what measuring them took, and whether ciphertexts change anything."""
    lines = []
    for pair in pairs:
        sent = pair.encrypted
        lines.append((
            pair.name, f"{pair.positions:,}", f"{pair.jaccard:.3f}", _percent(pair.exact_match),
            _percent(pair.boundary_match), f"{pair.explained_variance:.3f}",
            *(("–",) * 4 if sent is None else (
                f"{sent.positions}", _percent(sent.agreement), f"{sent.largest_error:.3f}", f"{sent.precision:g}",
            )),
            *(_seconds(pair.seconds.get(step)) for step in ("reading", "ridge", "refining", "encrypted")),
        ))  # fmt: skip
    return Table(
        "Jaccard is of the vocabularies; exact match is how many of the silo's tokens the client's tokenizer cuts "
        "alike, in percent, and ends match at the end of how many a token of the client's ends; explained variance is "
        "of the silo's states by ridge regression, over held-out public positions. Encrypted: test positions sent "
        "through ciphertexts under a silo's plan, how many have the same likeliest token as in the clear, in percent, "
        "and the largest error of a logit beside the one promised; tokens can differ where two logits are nearer than "
        "twice the error. Seconds by the clock: to read the public texts with both models, "
        "to fit and to refine the map, and to encode the head and send the encrypted positions.",
        ("pair", "test positions", "Jaccard", "exact match", "ends match", "explained variance", "encrypted",
         "same token", "largest error", "promised", "s: reading", "s: ridge", "s: KL", "s: encrypted"),
        lines,
    )  # fmt: skip


def perplexities(pairs: Sequence[GenerationResult]) -> Table | None:
    """Perplexity by number of positions; None if it was not asked for."""
    found = [(pair, kind, curve) for pair in pairs for kind, curve in pair.curve.items() if len(curve) > 1]
    sizes = sorted({size for _, _, curve in found for size in curve})
    if not found:
        return None
    return Table(
        "Perplexity by number of positions aligned over; the first ones of the same texts.",
        ("pair", "map", *(f"{size:,}" for size in sizes), "own"),
        [
            (
                pair.name,
                MAPS[kind],
                *(f"{curve[size]:.1f}" if size in curve else "–" for size in sizes),
                f"{pair.own_perplexity:.1f}",
            )
            for pair, kind, curve in found
        ],
        texts=2,
    )


def repetition(pairs: Sequence[GenerationResult]) -> Table | None:
    """How much samples repeat themselves; None without prompts."""
    found = [(pair.name, pair.repetition) for pair in pairs if pair.repetition is not None]
    if not found:
        return None
    return Table(
        "How greedy texts repeat themselves: the share of runs of four tokens that are distinct, in percent, and the "
        "texts with a loop (a run written three times in a row). Free: the likeliest token each time. Guarded: the "
        "default, in which no run of four tokens comes twice.",
        ("pair", "texts", "tokens", "own, free", "loops", "mapped, free", "loops", "own, guarded", "loops",
         "mapped, guarded", "loops"),
        [
            (
                name, f"{texts.texts}", f"{texts.tokens}",
                _percent(texts.free_own_distinct), f"{texts.free_own_loops}",
                _percent(texts.free_mapped_distinct), f"{texts.free_mapped_loops}",
                _percent(texts.own_distinct), f"{texts.own_loops}",
                _percent(texts.mapped_distinct), f"{texts.mapped_loops}",
            )
            for name, texts in found
        ],
    )  # fmt: skip


def samples(pair: GenerationResult) -> Table | None:
    """How the silo's own model goes on, and how its head does behind the client's; None without prompts."""
    if not pair.samples:
        return None
    return Table(
        f"{pair.name}: greedy; no run of four tokens comes twice.",
        ("prompt", "silo's own model", "client's model, silo's head"),
        [(sample.prompt, sample.own, sample.mapped) for sample in pair.samples],
        texts=3,
        long=True,
    )


def causal_models(pairs: Sequence[GenerationResult]) -> Table:
    """The models that took part in generation."""
    models = {model.name: model for pair in pairs for model in (pair.client, pair.silo)}
    return Table(
        "The causal models; a fingerprint stands for weights and tokenizer.",
        ("name", "model", "dimension", "vocabulary", "fingerprint"),
        [
            (model.name, model.model, f"{model.dimension}", f"{model.vocabulary:,}", model.fingerprint[:12])
            for model in models.values()
        ],
        texts=2,
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
