"""The fingerprint follows the function that the encoder computes, not where its files lie."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertModel, CTRLTokenizer

from sealign.encoders import Encoder, EncoderSettings, load_encoder
from sealign.encoders.fingerprint import fingerprint

from .conftest import WORDS, TinyModel


def of(path: Path, **options: Any) -> str:
    return load_encoder(EncoderSettings(model=str(path), **options)).card.fingerprint


def test_two_loads_agree(minilm: Encoder, minilm_path: Path) -> None:
    again = load_encoder(EncoderSettings(model=str(minilm_path), batch_size=1))
    again.encode(["what was encoded before leaves no trace"])
    assert again.card == minilm.card
    assert minilm.card.fingerprint == of(minilm_path, device="cpu")


def test_weights_without_a_part_are_left_out_when_random(tiny_model: TinyModel) -> None:
    path = tiny_model("bert without pooler")
    assert of(path) == of(path)


def test_file_layout_does_not_matter(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tiny_model("llama")
    sharded = tmp_path / "elsewhere"
    AutoModel.from_pretrained(path).save_pretrained(sharded, max_shard_size="4KB")
    AutoTokenizer.from_pretrained(path).save_pretrained(sharded)
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert of(sharded) == of(path)


def one_weight(model: BertModel) -> None:
    with torch.no_grad():
        weight = model.encoder.layer[1].output.dense.weight
        weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(9.0))


def one_activation(model: BertModel) -> None:
    model.config.hidden_act = "relu"


def more_heads(model: BertModel) -> None:
    model.config.num_attention_heads = 4


@pytest.mark.parametrize("change", [one_weight, one_activation, more_heads])
def test_a_changed_model_differs(tiny_model: TinyModel, change: Callable[[BertModel], None]) -> None:
    assert of(tiny_model("bert")) != of(tiny_model("bert", change=change, name="changed"))


def test_a_changed_token_differs(tiny_model: TinyModel) -> None:
    changed = tiny_model("bert", words=[*WORDS[:-1], "quince"], name="changed")
    assert of(tiny_model("bert")) != of(changed)


def test_tokenizers_written_in_python(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tiny_model("bert")
    vocabulary = {"<unk>": 0, "r": 1, "e": 2, "d</w>": 3, "re": 4, "red</w>": 5}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    CTRLTokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt").save_pretrained(path)
    (path / "tokenizer.json").unlink()
    moved = shutil.copytree(path, tmp_path / "moved")
    assert of(moved) == of(path)
    (moved / "merges.txt").write_text("#version: 0.2\nr e\n")
    assert of(moved) != of(path)


def test_stored_truncation_and_padding_do_not_matter(tiny_model: TinyModel) -> None:
    path = tiny_model("bert")
    before = of(path)
    file = path / "tokenizer.json"
    stored = json.loads(file.read_text())
    stored["truncation"] = {
        "max_length": 9,
        "strategy": "LongestFirst",
        "stride": 0,
        "direction": "Right",
    }
    file.write_text(json.dumps(stored))
    assert of(path) == before


def test_settings_that_change_embeddings_differ(tiny_model: TinyModel) -> None:
    path = tiny_model("bert")
    prints = [
        of(path),
        of(path, pooling="cls"),
        of(path, pooling="last"),
        of(path, max_length=32),
        of(path, normalise=False),
    ]
    assert len(set(prints)) == len(prints)
    assert of(path, batch_size=1, device="cpu", threads=1) == prints[0]


def test_items_do_not_run_into_each_other() -> None:
    def of_items(*items: tuple[str, bytes]) -> str:
        return fingerprint("family", description={}, contents=items)

    assert of_items(("a", b"bc")) != of_items(("ab", b"c"))
    assert of_items(("a", b"b"), ("c", b"d")) != of_items(("a", b"bcd"))


def test_hashing_is_fast() -> None:
    content = memoryview(bytes(90_000_000))  # the size of MiniLM
    started = time.perf_counter()
    fingerprint("family", description={}, contents=[("w", content)])
    assert time.perf_counter() - started < 3
