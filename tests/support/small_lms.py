"""Three small causal language models, trained from scratch on movie reviews; two minutes or so, once a checkout.

``one`` and ``two`` share a tokenizer and differ in seed, size and half of the reviews. ``three`` has a tokenizer of its
own kind and learned from the first half. They lie below ``.cache/small-lms``, under a digest of this file.

    python -m tests.support.small_lms
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deploy.demo.data import movie_reviews

ROOT = Path(__file__).parents[2] / ".cache" / "small-lms"
_END = "<|end|>"
_LENGTH = 128
"""Tokens of a training sequence."""
_BATCH = 12
_TOKENIZER_TEXTS = 1500
_TEXTS = 2500
"""Reviews of each half."""
_HELD_OUT = 1500
"""Reviews that no model has seen: public texts first, test texts last."""


@dataclass(frozen=True)
class Recipe:
    """How one of the models is made."""

    tokenizer: str
    half: int
    hidden: int
    layers: int
    tied: bool
    seed: int
    steps: int


RECIPES = {
    "one": Recipe(tokenizer="bytes", half=0, hidden=112, layers=2, tied=True, seed=1, steps=300),
    "two": Recipe(tokenizer="bytes", half=1, hidden=144, layers=2, tied=False, seed=2, steps=300),
    "three": Recipe(tokenizer="words", half=0, hidden=128, layers=2, tied=False, seed=3, steps=300),
}


@lru_cache(maxsize=1)
def _reviews() -> list[str]:
    return [review.text for review in movie_reviews() if len(review.text) > 200]


def public_texts(count: int) -> list[str]:
    """Openings of reviews that no model has seen; none of them a test text."""
    return [_opening(text) for text in _reviews()[-_HELD_OUT:][:count]]


def test_texts(count: int) -> list[str]:
    """Openings of reviews that no model has seen, nor any map."""
    return [_opening(text) for text in _reviews()[-count:]]


def small_lm(name: str) -> Path:
    """The directory of a model, as transformers saves it; trained if it is not there.

    Raises:
        InvalidInputError: the wheel that holds the reviews is not installed.
    """
    directory = ROOT / _digest(name) / name
    if not directory.is_dir():
        ROOT.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=ROOT))
        _train(RECIPES[name], made / name)
        directory.parent.mkdir(exist_ok=True)
        try:
            (made / name).rename(directory)
        except OSError:  # another process was faster
            if not directory.is_dir():
                raise
        shutil.rmtree(made)
    return directory


def _digest(name: str) -> str:
    content = f"{RECIPES[name]} {version('movie-reviews')}".encode() + Path(__file__).read_bytes()
    return sha256(content).hexdigest()[:16]


def _opening(text: str) -> str:
    return " ".join(text.split()[:80])


def _half(half: int) -> list[str]:
    return _reviews()[:-_HELD_OUT][half::2][:_TEXTS]


def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if kind == "words" else None))
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        size, special = 1024, [_END]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
        size, special = 1536, ["<unk>", _END]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(_half(kind == "words")[:_TOKENIZER_TEXTS], trainer)
    unknown = {"unk_token": "<unk>"} if kind == "words" else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, model_max_length=512, **unknown)


def _train(recipe: Recipe, directory: Path) -> None:
    tokenizer = _tokenizer(recipe.tokenizer)
    stream: list[int] = []
    for ids in tokenizer(_half(recipe.half), add_special_tokens=False)["input_ids"]:
        stream += [*ids, tokenizer.eos_token_id]
    rows = len(stream) // _LENGTH
    sequences = torch.tensor(stream[: rows * _LENGTH]).reshape(rows, _LENGTH)
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=3 * recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=recipe.tied,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=recipe.steps, pct_start=0.1)
    order = np.random.default_rng(recipe.seed)
    model.train()
    for _ in range(recipe.steps):
        batch = sequences[order.integers(rows, size=_BATCH)]
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in RECIPES:
        started = perf_counter()
        path = small_lm(name)
        print(f"{name}: {path} ({perf_counter() - started:.0f} s)")
