"""Tiny transformers and sentence-transformers folders, the same on every machine; nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

SMALL: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 128, "pad_token_id": 1,
}  # fmt: skip
TEXTS = [
    "stocks fell sharply in london",
    "Wheat Harvest GREW In Kansas",
    "zoë's café: 12€ 🙂 déjà vu",
    "oil",
    "copper prices rose as the strike went on and " * 5,
]
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def byte_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """One token per byte, with a token before and one behind every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*_SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{"model_input_names": ["input_ids", "attention_mask"], **names, **options}
    )


def model_folder(path: Path, kind: str = "bert", *, tokenizer: Any = True, seed: int = 1, **config: Any) -> Path:
    """Save a random model of an architecture, with the byte tokenizer, another one, or none."""
    random = np.random.default_rng(seed)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **{**SMALL, **config}))
    for name, parameter in sorted(model.named_parameters()):
        level = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
        parameter.data = torch.from_numpy(random.normal(level, 0.2, parameter.shape).astype(np.float32))
    model.save_pretrained(path)
    if tokenizer is not None and tokenizer is not False:
        (byte_tokenizer() if tokenizer is True else tokenizer).save_pretrained(path)
    return path


def sentence_folder(
    path: Path,
    *,
    pooling: Mapping[str, Any] | None = None,
    layers: Sequence[Mapping[str, Any] | None] = (),
    transformer: Mapping[str, Any] | None = None,
    top: Mapping[str, Any] | None = None,
    folder: str = "",
) -> Path:
    """Save a sentence-transformers folder around the same random BERT.

    Args:
        path: of the folder.
        pooling: entries of the pooling's configuration beside the dimension; by default the mean.
        layers: what follows: the configuration of a Dense module, or None for Normalize.
        transformer: entries of sentence_bert_config.json beside a maximum length of 64.
        top: entries of config_sentence_transformers.json.
        folder: of the transformer in it.
    """
    model_folder(path / folder)
    modules = [("Transformer", folder), ("Pooling", "1_Pooling")]
    _write(
        path / folder / "sentence_bert_config.json",
        {"max_seq_length": 64, "do_lower_case": False, **(transformer or {})},
    )
    chosen = {"pooling_mode_mean_tokens": True} if pooling is None else pooling
    _write(path / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, **chosen})
    random = np.random.default_rng(2)
    for number, layer in enumerate(layers, 2):
        name = f"{number}_{'Normalize' if layer is None else 'Dense'}"
        modules.append((name[2:], name))
        if layer is None:
            (path / name).mkdir()
            continue
        _write(path / name / "config.json", layer)
        inputs, outputs = layer["in_features"], layer["out_features"]
        weights = {"linear.weight": random.normal(0, 0.5, (outputs, inputs)).astype(np.float32)}
        if layer.get("bias", True):
            weights["linear.bias"] = random.normal(0, 0.5, outputs).astype(np.float32)
        if layer.get("use_residual") and inputs != outputs:
            weights["residual.weight"] = random.normal(0, 0.5, (outputs, inputs)).astype(np.float32)
        save_file(weights, path / name / "model.safetensors")
    listed = [
        {"idx": number, "name": str(number), "path": where, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, where) in enumerate(modules)
    ]
    _write(path / "modules.json", listed)
    if top is not None:
        _write(path / "config_sentence_transformers.json", top)
    return path


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
