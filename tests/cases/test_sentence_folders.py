"""Cases 01 to 05: a sentence-transformers folder gives that package's embeddings, or a refusal by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealign.encoders import EncoderSettings, TextEncoder, load_encoder
from sealign.errors import InvalidInputError
from tests.cases.sentence_folders import FOLDERS, REFERENCE, dense
from tests.support.tiny_models import TEXTS, sentence_folder

VECTORS = json.loads(REFERENCE.read_text(encoding="utf-8"))["vectors"]


def loaded(path: Path, **options: Any) -> TextEncoder:
    return load_encoder(EncoderSettings(model=str(path), device="cpu", **options))


@pytest.mark.parametrize("name", FOLDERS)
def test_vectors_are_those_of_sentence_transformers(name: str, tmp_path: Path) -> None:
    path = sentence_folder(tmp_path / "model", **FOLDERS[name])
    expected = np.array(VECTORS[name])
    raw = loaded(path, normalise=False, long_texts="truncate").encode(TEXTS)
    np.testing.assert_allclose(raw, expected, atol=1e-6)
    scaled = loaded(path).encode(TEXTS, long_texts="truncate")
    np.testing.assert_allclose(scaled, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_everything_that_decides_the_vectors_is_in_the_fingerprint(tmp_path: Path) -> None:
    prints = [loaded(sentence_folder(tmp_path / str(n), **o)).card.fingerprint for n, o in enumerate(FOLDERS.values())]
    # The folder of the transformer decides nothing.
    assert prints.pop() == prints[0]
    assert len(set(prints)) == len(prints)


def test_prompts_are_chosen_by_name_or_text(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "Query: ", "passage": "Passage: "}}
    path = sentence_folder(tmp_path / "model", top=prompts)
    plain = loaded(path).encode(TEXTS[:4])
    np.testing.assert_allclose(
        loaded(path, prompt="query").encode(TEXTS[:4]),
        loaded(path).encode([f"Query: {t}" for t in TEXTS[:4]]),
        atol=1e-6,
    )
    given = load_encoder(EncoderSettings.parse(f"{path}?prompt_text=Passage:%20"))
    assert given.card == loaded(path, prompt="passage").card
    assert len({loaded(path, prompt=name).card.fingerprint for name in (None, "query", "passage")}) == 3
    (remark,) = [what for what, _ in loaded(path).remarks]
    assert "passage, query" in remark
    with pytest.raises(InvalidInputError, match="no prompt 'document'; it declares passage, query"):
        loaded(path, prompt="document")
    default = sentence_folder(tmp_path / "default", top={**prompts, "default_prompt_name": "query"})
    np.testing.assert_allclose(loaded(default, prompt_text="").encode(TEXTS[:4]), plain, atol=1e-6)


def test_settings_that_are_given_take_precedence(tmp_path: Path) -> None:
    path = sentence_folder(tmp_path / "model")
    assert loaded(path).window == 64
    assert loaded(path, max_length=100).window == 100
    given = loaded(path, pooling="cls", normalise=False).encode(TEXTS, long_texts="truncate")
    np.testing.assert_allclose(given, VECTORS["cls"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": {"pooling_mode": "median"}}, "pooling_mode = 'median'"),
        ({"pooling": {"pooling_mode_first_tokens": True}}, "'pooling_mode_first_tokens'"),
        ({"layers": [dense(16, 8, "my_module.Cube")]}, "activation_function = 'my_module.Cube'"),
        ({"layers": [dense(16, 8, module_input_name="token_embeddings")]}, "module_input_name = 'token_embeddings'"),
        ({"transformer": {"modality_config": {"message": {}}}}, "modality_config"),
        ({"transformer": {"processing_kwargs": {"text": {"padding": "max_length"}}}}, "processing_kwargs"),
        ({"transformer": {"model_args": {"add_pooling_layer": False}}}, "add_pooling_layer"),
        ({"transformer": {"max_seq_length": "many"}}, "max_seq_length = 'many'"),
        ({"top": {"model_type": "SparseEncoder"}}, "model_type = 'SparseEncoder'"),
        ({"top": {"prompts": {}, "default_prompt_name": "query"}}, "default_prompt_name = 'query'"),
        ({"top": {"colour": "red"}}, "'colour' is not supported"),
    ],
)
def test_what_is_not_supported_is_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = sentence_folder(tmp_path / "model", **options)
    with pytest.raises(InvalidInputError, match=message):
        loaded(path)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([("sentence_transformers.models.StaticEmbedding", "")], "lists StaticEmbedding"),
        ([("sentence_transformers.models.Transformer", "")], "lists Transformer"),
        ([("transformers_modules.model.Own", "")], "'transformers_modules.model.Own' needs its own code"),
        ([("sentence_transformers.models.Transformer", "../other")], "outside the model"),
        (
            [(f"sentence_transformers.models.{name}", path) for name, path in
             (("Transformer", ""), ("Pooling", "1_Pooling"), ("LSTM", "2_LSTM"))],
            "its module LSTM is not supported",
        ),
    ],
)  # fmt: skip
def test_modules_that_are_not_supported_are_named(modules: list[tuple[str, str]], message: str, tmp_path: Path) -> None:
    path = sentence_folder(tmp_path / "model")
    listed = [{"idx": n, "name": str(n), "path": where, "type": kind} for n, (kind, where) in enumerate(modules)]
    (path / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(InvalidInputError, match=message):
        loaded(path)


def test_damaged_folders(tmp_path: Path) -> None:
    path = sentence_folder(tmp_path / "model", layers=[dense(16, 8)])
    config = path / "2_Dense" / "config.json"
    config.write_text(json.dumps(dense(16, 9)))
    with pytest.raises(InvalidInputError, match="weights in 2_Dense are not those"):
        loaded(path)
    config.write_text("{")
    with pytest.raises(InvalidInputError, match=r"2_Dense/config\.json is not JSON"):
        loaded(path)
    config.write_text(json.dumps(dense(16, 8)))
    (path / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(InvalidInputError, match="2_Dense has no weights"):
        loaded(path)
    (path / "adapter_config.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="adapter of another model"):
        loaded(path)
