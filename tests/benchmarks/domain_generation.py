"""When generation across models is worth anything: a silo whose head knows a domain, and what the client knows alone.

    python -m tests.benchmarks.domain_generation [CLIENT SILO] [positions=4000] [tuning=12000] [test=1000] [cache=DIR]

The silo's head is tuned on Reuters newswire that the client never sees: the rows of tokens that occur there, by
cross-entropy. Map and control are learned over other newswire, which counts as public, and all are measured on test
newswire. Without tuning, the same is measured of the head as it came. CLIENT and SILO are causal models of
evaluation.toml, by default gemma3 and smollm2; write their files first (`python -m tests.benchmarks.evaluation_data`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import numpy as np
import torch

from deploy.demo.data import reuters_r8
from sealign.alignment import RidgeStatistics, fit_ridge
from sealign.encoders import EncoderSettings
from sealign.encoders.causal import CausalModel, OutputHead
from sealign.generation import Rewriting, measure_agreement, measure_predictions, predictor, token_counts
from sealign.generation.kl import refine_by_divergence
from sealign.lab.evaluation import EvaluationSpec
from sealign.lab.evaluation.generation.states import StateCache, States, enough_texts

_HERE = Path(__file__).parent
_TUNING_EPOCHS, _BATCH, _STEP = 4, 128, 2e-2
_HELD_OUT = 0.1
_CHUNK = 128


def tuned(head: OutputHead, states: np.ndarray, following: np.ndarray) -> OutputHead:
    """Return a head whose rows for the tokens that occur were fitted to what follows; the best of a few epochs.

    The other rows stay, so their part of each normaliser is computed once.

    Args:
        head: as it came.
        states: the silo's, (n, d).
        following: the token after each, (n,); none is −1.
    """
    occurring = np.unique(following)
    others = np.delete(np.arange(len(head.weight)), occurring)
    chunks = (states[start : start + _CHUNK] @ head.weight[others].T for start in range(0, len(states), _CHUNK))
    rest = torch.cat([torch.logsumexp(torch.from_numpy(chunk), dim=1) for chunk in chunks])
    wanted = torch.from_numpy(np.searchsorted(occurring, following))
    x, weight = torch.from_numpy(states), torch.tensor(head.weight[occurring])
    spread = float(weight.norm(dim=1).mean()) / weight.shape[1] ** 0.5
    change, bias = torch.zeros_like(weight, requires_grad=True), torch.zeros(len(weight), requires_grad=True)
    optimiser = torch.optim.AdamW(
        [{"params": [change], "lr": _STEP * spread}, {"params": [bias], "lr": _STEP}], weight_decay=0.01
    )

    def loss(rows: np.ndarray) -> torch.Tensor:
        logits = x[rows] @ (weight + change).T + bias
        total = torch.logaddexp(torch.logsumexp(logits, dim=1), rest[rows])
        return (total - logits.gather(1, wanted[rows][:, None])[:, 0]).mean()

    held = np.arange(len(x) - int(_HELD_OUT * len(x)), len(x))
    order = np.random.default_rng(0)
    best, kept = np.inf, (weight, bias.detach().clone())
    for epoch in range(_TUNING_EPOCHS + 1):
        for batch in np.array_split(order.permutation(held[0]), held[0] // _BATCH) if epoch else ():
            optimiser.zero_grad()
            torch.autograd.backward(loss(batch))
            optimiser.step()
        with torch.inference_mode():
            found = float(loss(held))
        print(f"tuning, epoch {epoch}: held-out perplexity {np.exp(found):.1f}", flush=True)
        if found < best:
            best, kept = found, ((weight + change).detach().clone(), bias.detach().clone())
    rows, biases = head.weight.copy(), np.zeros(len(head.weight), np.float32)
    rows[occurring], biases[occurring] = kept[0].numpy(), kept[1].numpy()
    return OutputHead(rows, biases)


def report(name: str, client: CausalModel, silo: CausalModel, head: OutputHead, public: States, test: States) -> None:
    """Print a row for a head: its own perplexity, and that behind both maps."""
    statistics = RidgeStatistics(public.client.shape[1], public.silo.shape[1])
    statistics.update(public.client, public.silo)
    ridge = fit_ridge(
        statistics,
        source_fingerprint=client.card.fingerprint,
        target_fingerprint=silo.card.fingerprint,
        public_set="0" * 64,
    )
    refined = refine_by_divergence(ridge, head, public.client, public.silo, epochs=5).map
    before, after = (measure_agreement(head, m.apply(test.client), test.silo, test.following) for m in (ridge, refined))
    print(
        f"{name:12s} silo's own {after.own_perplexity:7.1f}  ridge {before.perplexity:7.1f}  KL {after.perplexity:7.1f}"
        f"  ratio {after.perplexity_ratio:.2f}  top-1 {100 * after.top1:.1f} %",
        flush=True,
    )


def main(arguments: Sequence[str]) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    names = [argument for argument in arguments if "=" not in argument] or ["gemma3", "smollm2"]
    encoders = EvaluationSpec.load(_HERE / "evaluation.toml").encoders
    client, silo = (CausalModel(EncoderSettings.parse(encoders[name])) for name in names)
    cache = StateCache(Path(options.get("cache", _HERE / "evaluation-output" / "cache")) / "states")
    news, unseen = ([text.text for text in reuters_r8(split)] for split in ("train", "test"))
    half = len(news) // 2
    public_texts = news[half:]

    def read(texts: Sequence[str], rows: int, reader: CausalModel) -> States:
        some, _ = enough_texts(silo.tokenizer, tuple(texts), rows)
        return cache.read(reader, silo, some, rows, lambda _: None)

    private = read(news[:half], int(options.get("tuning", 12_000)), silo)
    public, test = (
        read(texts, int(options.get(name, rows)), client)
        for name, texts, rows in (("positions", public_texts, 4000), ("test", unseen, 1000))
    )
    follows = private.following >= 0
    head = tuned(silo.head, private.silo[follows], private.following[follows])
    rewriting = Rewriting(
        client.tokenizer, silo.tokenizer, token_counts(silo.tokenizer, silo.card.vocabulary, public_texts)
    )
    alone = measure_predictions(
        predictor(silo.head, test.silo),
        lambda rows: rewriting.log_probabilities(client.head.logits(test.final[rows])),
        test.silo,
        test.following,
    )
    print(f"{names[0]} to {names[1]}, newswire, {len(public.client)} positions, {alone.positions} test positions")
    report("head as came", client, silo, silo.head, public, test)
    report("head tuned", client, silo, head, public, test)
    print(f"client alone {alone.perplexity:.1f}; {process_time():.0f} s of processor time")


if __name__ == "__main__":
    main(sys.argv[1:])
