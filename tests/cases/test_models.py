"""Cases 07, 16, 20, 30, 31: models that load and embed wrongly, or fail without a clear line."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from sealign.encoders import EncoderSettings, TextEncoder, check_encoder, load_encoder, probe_embeddings, same_vectors
from sealign.errors import InvalidInputError
from tests.support.tiny_models import TEXTS, byte_tokenizer, model_folder

KINDS: dict[str, dict[str, Any]] = {
    "roberta": {"max_position_embeddings": 130},
    "xlm-roberta": {"max_position_embeddings": 130},
    "camembert": {"max_position_embeddings": 130},
    "data2vec-text": {"max_position_embeddings": 130},
    "roberta-prelayernorm": {"max_position_embeddings": 130},
    "ibert": {"max_position_embeddings": 130},
    "luke": {"max_position_embeddings": 130, "entity_vocab_size": 8, "entity_emb_size": 8},
    "markuplm": {"max_position_embeddings": 130},
    "mpnet": {"max_position_embeddings": 130},
    "longformer": {"max_position_embeddings": 130, "attention_window": 8},
    "distilbert": {"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32},
}


def loaded(path: Path, **options: Any) -> TextEncoder:
    return load_encoder(EncoderSettings(model=str(path), device="cpu", threads=1, **options))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "xlm-roberta", "mpnet", "t5", "electra"])
def test_a_folder_without_tokenizer_files_is_refused(kind: str, tmp_path: Path) -> None:
    config: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 400}
    path = model_folder(tmp_path / "model", kind, tokenizer=None, **(config if kind == "t5" else KINDS.get(kind, {})))
    with pytest.raises(InvalidInputError, match="tokenizer"):
        loaded(path)


def test_a_tokenizer_that_knows_no_word_is_refused(tmp_path: Path) -> None:
    vocabulary = {token: number for number, token in enumerate(["<unk>", *(f"zq{number}" for number in range(8999))])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")  # noqa: S106
    path = model_folder(tmp_path / "model", tokenizer=tokenizer, vocab_size=9000)
    with pytest.raises(InvalidInputError, match="unknown tokens: its files are damaged"):
        loaded(path)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("bert", {}),
        ("fnet", {}),
        ("nystromformer", {"num_landmarks": 8, "segment_means_seq_len": 8}),
        ("yoso", {}),
        ("convbert", {"embedding_size": 16, "head_ratio": 2}),
        ("mobilebert", {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16}),
    ],
)
def test_a_vector_does_not_depend_on_its_batch(kind: str, config: dict[str, Any], tmp_path: Path) -> None:
    encoder = loaded(model_folder(tmp_path / "model", kind, **config))
    texts = [*TEXTS[:4], "oil"]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), alone, atol=1e-5)
    assert all(finding.level != "error" for finding in check_encoder(encoder))
    if kind == "fnet":
        assert "sees padding" in encoder.remarks[0][0]


def test_a_model_that_is_random_is_refused_with_the_figure(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "attention_head_size": 8, "axial_pos_embds": False, "feed_forward_size": 32, "hidden_size": 16,
        "attn_layers": ["lsh", "lsh"], "num_attention_heads": 2, "lsh_attn_chunk_length": 8, "num_buckets": 4,
    }  # fmt: skip
    path = model_folder(tmp_path / "model", "reformer", **config)
    with pytest.raises(InvalidInputError, match=r"differently each time \(distance 0\.\d+"):
        loaded(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_length_beyond_the_positions_is_narrowed(kind: str, tmp_path: Path) -> None:
    encoder = loaded(model_folder(tmp_path / "model", kind, **KINDS[kind]), max_length=1024)
    assert encoder.window is not None
    assert 100 < encoder.window <= 130
    rows = encoder.encode(["copper " * 200], long_texts="truncate")
    assert np.isfinite(rows).all()
    with pytest.raises(InvalidInputError, match=f"1 of 1 texts are longer than the {encoder.window} tokens"):
        encoder.encode(["copper " * 200])


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "mpnet"])
def test_token_types_that_a_model_does_not_take_are_left_out(kind: str, tmp_path: Path) -> None:
    names = ["input_ids", "token_type_ids", "attention_mask"]
    more = KINDS.get(kind, {})
    given = loaded(model_folder(tmp_path / "a", kind, tokenizer=byte_tokenizer(model_input_names=names), **more))
    plain = loaded(model_folder(tmp_path / "b", kind, **more))
    np.testing.assert_allclose(given.encode(TEXTS[:4]), plain.encode(TEXTS[:4]), atol=1e-6)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


def test_failures_are_one_clear_line(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "model")
    (path / "model.safetensors").unlink()
    torch.save({"a": Bomb()}, path / "pytorch_model.bin")
    cases = [(path, "holds more than weights")]
    cases.append((tmp_path / "nowhere" / "model", "there is no such directory"))
    own = shutil.copytree(path, tmp_path / "own")
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}))
    cases.append((own, "needs its own code, which Sealign never runs"))
    for folder, message in cases:
        with pytest.raises(InvalidInputError, match=message) as caught:
            loaded(folder)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)


def test_weights_in_a_torch_file_are_the_same_model(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "model")
    other = shutil.copytree(path, tmp_path / "other")
    from safetensors.torch import load_file

    torch.save(load_file(other / "model.safetensors"), other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    assert loaded(other).card.fingerprint == loaded(path).card.fingerprint


def test_a_canine_has_no_table_of_tokens(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "model", "canine", max_position_embeddings=256, num_hash_functions=4)
    with pytest.raises(InvalidInputError, match="no table of token embeddings"):
        loaded(path)


def test_an_upgrade_of_transformers_does_not_rename_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 5 adds defaults to configurations that version 4 did not know; the files are the same."""
    from transformers import BertConfig

    path = model_folder(tmp_path / "model")
    before = loaded(path)
    to_diff_dict = BertConfig.to_diff_dict
    monkeypatch.setattr(BertConfig, "to_diff_dict", lambda self: {**to_diff_dict(self), "is_decoder": False})
    monkeypatch.setattr(BertConfig, "an_option_of_version_6", 7, raising=False)
    after = loaded(path)
    assert after.card.fingerprint == before.card.fingerprint
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert loaded(path).card.fingerprint == before.card.fingerprint


def test_an_equivalent_reader_is_recognised_by_measurement(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "model")
    known = probe_embeddings(loaded(path))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "an_entry_of_another_writer": 1}))
    again = loaded(path)
    assert same_vectors(known, probe_embeddings(again))
    for changed in (
        loaded(path, pooling="cls"),
        loaded(path, prompt_text="query: "),
        loaded(model_folder(path, seed=2)),
    ):
        assert not same_vectors(known, probe_embeddings(changed))
    assert not same_vectors(known, known[:, :8])
    assert not same_vectors(known, np.full_like(known, np.nan))


def test_pooling_that_says_nothing_is_refused(tmp_path: Path) -> None:
    """The first token of a causal model sees no other: all texts get its vector."""
    more = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}
    path = model_folder(tmp_path / "model", "gpt2", **more)
    with pytest.raises(InvalidInputError, match="two different probe texts the same vector"):
        loaded(path, pooling="cls")


def test_nothing_is_unpickled() -> None:
    with pytest.raises(SystemExit):
        pickle.loads(pickle.dumps(Bomb()))  # noqa: S301 - the attack works where nobody guards
