"""Tiny random causal models with byte-pair tokenizers, written here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from sealign.encoders import EncoderSettings, load_encoder
from sealign.encoders.causal import CausalModel
from sealign.encoders.tokenizer import CausalTokenizer
from sealign.errors import InvalidInputError

SIZE, WINDOW = 320, 64
TEXT = "the story of a naïve 🙂 cat, told twice: the cat sat"
Build = Callable[..., Path]


def byte_pairs(*, begin: bool = False, size: int = SIZE) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|end|>", "<|begin|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT, "once upon a time there was another story"] * 3, trainer)
    if begin:
        tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")  # noqa: S106


def model_of(kind: str, **changes: Any) -> Any:
    torch.manual_seed(3)
    common: dict[str, Any] = {"vocab_size": SIZE, "eos_token_id": 0, "bos_token_id": None}
    llama = {
        **common, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": WINDOW,
    }  # fmt: skip
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**common, n_positions=WINDOW, n_embd=16, n_layer=2, n_head=2, **changes))
    if kind == "bloom":  # has no positions, and wants a mask of tokens, not of pairs
        return BloomForCausalLM(BloomConfig(**common, hidden_size=16, n_layer=2, n_head=2, **changes))
    if kind == "gemma3":  # every other layer sees a sliding window of 8 tokens
        layers = ["sliding_attention", "full_attention"]
        return Gemma3ForCausalLM(Gemma3TextConfig(**{**llama, "sliding_window": 8, "layer_types": layers, **changes}))
    if kind == "gemma2":  # caps its logits
        return Gemma2ForCausalLM(Gemma2Config(**{**llama, "final_logit_softcapping": 0.1, **changes}))
    return LlamaForCausalLM(LlamaConfig(**{**llama, **changes}))


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def built(kind: str = "llama", *, begin: bool = False, name: str = "tiny", **changes: Any) -> Path:
        model_of(kind, **changes).save_pretrained(tmp_path / name)
        byte_pairs(begin=begin).save_pretrained(tmp_path / name)
        return tmp_path / name

    return built


def load(path: Path, **options: Any) -> CausalModel:
    return CausalModel(EncoderSettings(model=str(path), device="cpu", threads=1, **options))


KINDS = [("llama", {}), ("llama", {"tie_word_embeddings": True}), ("gpt2", {}), ("gemma3", {})]


@pytest.mark.parametrize(("kind", "changes"), KINDS)
@pytest.mark.parametrize("begin", [False, True])
def test_states_and_head_give_the_models_own_logits(
    kind: str, changes: dict[str, Any], begin: bool, build: Build
) -> None:
    path = build(kind, begin=begin, **changes)
    model = load(path)
    assert (model.card.dimension, model.card.vocabulary, model.card.window) == (16, SIZE, WINDOW)
    assert model.tokenizer.prefix == ((1,) if begin else ())
    (read,) = model.states([TEXT])
    own = model_of(kind, **changes).eval()
    with torch.no_grad():
        ids = torch.tensor([[*model.tokenizer.prefix, *read.tokens.ids.tolist()]])
        expected = own(input_ids=ids).logits[0, len(model.tokenizer.prefix) :].numpy()
    np.testing.assert_allclose(model.head.logits(read.states), expected, atol=1e-5)
    assert read.states.dtype == np.float32
    assert not model.head.weight.flags.writeable


@pytest.mark.parametrize(("kind", "changes"), KINDS)
def test_a_session_equals_one_pass_however_the_text_changes(kind: str, changes: dict[str, Any], build: Build) -> None:
    model = load(build(kind, begin=True, **changes))
    session = model.session()
    for text in (
        "the st", "the story", "the story of a cat", "the story of a naïve 🙂", "the story of a naïve 🙂 cat, told",
        "the story of a naïve 🙂 cat, told twice: the cat", "the story was", "the story", "the story", "another",
    ):  # fmt: skip
        (whole,) = model.states([text])
        np.testing.assert_allclose(session.advance(text), whole.states[-1], atol=1e-5)
        assert len(session) == 1 + len(whole.tokens)


def passes_of(model: CausalModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each pass from now on."""
    ran: list[int] = []
    run = model._passes._run

    def counted(**inputs: Any) -> Any:
        ran.append(inputs["input_ids"].shape[1])
        return run(**inputs)

    monkeypatch.setattr(model._passes, "_run", counted)
    return ran


BEGUN = ["the st", "the story", "the story of a naïve", "the story of a naïve 🙂 cat, t", "a story"]


@pytest.mark.parametrize(("kind", "changes"), [*KINDS, ("gemma3", {"sliding_window": 64}), ("bloom", {})])
@pytest.mark.parametrize("begin", [False, True])
def test_texts_read_beside_another_have_the_states_of_passes_of_their_own(
    kind: str, changes: dict[str, Any], begin: bool, build: Build
) -> None:
    model = load(build(kind, begin=begin, **changes))
    for text in (TEXT, "the story of a naïve 🙂 cat, told twice"):
        (whole,) = model.states([text])
        states, ends = model.states_beside(whole.tokens, BEGUN)
        np.testing.assert_allclose(states, whole.states, atol=1e-5)
        np.testing.assert_allclose(ends, [read.states[-1] for read in model.states(BEGUN)], atol=1e-5)


def test_texts_read_beside_another_cost_what_they_do_not_share(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(build(begin=True))
    (whole,) = model.states([TEXT])
    model.states_beside(whole.tokens, [TEXT[:5]])
    ran = passes_of(model, monkeypatch)
    (cut,) = model.states([TEXT[:5]])
    ran.clear()
    model.states_beside(whole.tokens, [TEXT[:5]] * 3)
    shared = int(np.argmax([*(cut.tokens.ids != whole.tokens.ids[: len(cut.tokens)]), True]))
    assert ran == [1 + len(whole.tokens) + 3 * max(1, len(cut.tokens) - shared)]


def test_only_what_is_new_runs_again(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(build())
    ran = passes_of(model, monkeypatch)
    session = model.session()
    session.advance(TEXT)
    session.advance(TEXT + " once")
    session.advance(TEXT + " once")
    assert ran[0] == len(model.tokenizer.encode(TEXT))
    assert ran[1] == len(model.tokenizer.encode(" once"))
    assert ran[2] == 1


def test_window(build: Build) -> None:
    path = build(begin=True)
    narrow = load(path, max_length=9)
    assert narrow.card.window == 9
    assert narrow.card.fingerprint == load(path).card.fingerprint
    (read,) = narrow.states([TEXT])
    assert len(read.tokens) == len(read.states) == 8
    session = narrow.session()
    with pytest.raises(InvalidInputError, match="reads at most 9; shorten the prompt"):
        session.advance(TEXT)
    session.advance("the cat")
    (short,) = narrow.states([TEXT], most=3)
    np.testing.assert_array_equal(short.tokens.ids, read.tokens.ids[:3])


def test_fingerprints(build: Build) -> None:
    path = build()
    model = load(path)
    assert model.card == load(path, pooling="last", normalise=False, batch_size=2).card
    assert model.card.fingerprint != load_encoder(EncoderSettings(model=str(path))).card.fingerprint
    other = load(build("llama", begin=True, name="other"))
    assert other.card.tokenizer != model.card.tokenizer
    assert other.card.fingerprint != model.card.fingerprint


class TestTokenizer:
    @pytest.fixture
    def tokenizer(self) -> CausalTokenizer:
        return CausalTokenizer.of(byte_pairs(), frozenset({1}))

    def test_pieces_write_what_was_read(self, tokenizer: CausalTokenizer) -> None:
        text = "the story of a cat, told twice\n"
        tokens = tokenizer.encode(text)
        assert "".join(tokenizer.pieces[number] for number in tokens.ids) == text
        assert [text[start:end] for start, end in tokens.offsets] == [tokenizer.pieces[n] for n in tokens.ids]

    def test_special_tokens_in_a_text_are_text(self, tokenizer: CausalTokenizer) -> None:
        tokens = tokenizer.encode("a <|end|> b<|begin|>")
        assert not {0, 1} & set(tokens.ids.tolist())
        assert "".join(tokenizer.pieces[number] for number in tokens.ids) == "a <|end|> b<|begin|>"

    def test_parts_of_characters_and_special_tokens_write_nothing(self, tokenizer: CausalTokenizer) -> None:
        assert tokenizer.ends == {0, 1}
        assert not tokenizer.pieces[0]
        parts = tokenizer.encode("文").ids
        assert len(parts) > 1
        assert not any(tokenizer.pieces[number] for number in parts)
        allowed = tokenizer.allowed(SIZE + 5)
        assert allowed[[0, 1]].all()
        assert not allowed[parts].any()
        assert not allowed[SIZE:].any()
        assert tokenizer.encode("文").ends.tolist() == [1] * len(parts)

    def test_bytes_and_back(self, tokenizer: CausalTokenizer) -> None:
        again = CausalTokenizer.from_bytes(tokenizer.to_bytes())
        assert again.fingerprint == tokenizer.fingerprint
        assert (again.prefix, again.ends, again.pieces) == (tokenizer.prefix, tokenizer.ends, tokenizer.pieces)
        np.testing.assert_array_equal(again.encode("<|end|> x").ids, tokenizer.encode("<|end|> x").ids)

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"format": "sealign.causal-tokenizer/1"}'])
    def test_bytes_that_are_no_tokenizer(self, content: bytes) -> None:
        with pytest.raises(InvalidInputError, match="not a whole tokenizer"):
            CausalTokenizer.from_bytes(content)

    def test_a_version_to_come(self, tokenizer: CausalTokenizer) -> None:
        with pytest.raises(InvalidInputError, match="another version"):
            CausalTokenizer.from_bytes(tokenizer.to_bytes().replace(b"causal-tokenizer/1", b"causal-tokenizer/2"))

    def test_a_head_of_another_size(self, tokenizer: CausalTokenizer) -> None:
        with pytest.raises(InvalidInputError, match="belong to different models"):
            tokenizer.allowed(tokenizer.size - 1)

    @pytest.mark.parametrize("text", ["", "  ", "a\ud800"])
    def test_nothing_to_read(self, tokenizer: CausalTokenizer, text: str) -> None:
        with pytest.raises(InvalidInputError):
            tokenizer.encode(text)


def test_a_tokenizer_larger_than_the_head(tmp_path: Path) -> None:
    model_of("llama", vocab_size=SIZE - 60).save_pretrained(tmp_path)
    byte_pairs().save_pretrained(tmp_path)
    with pytest.raises(InvalidInputError, match="use the tokenizer that belongs to the model"):
        load(tmp_path)


def test_a_padded_head(build: Build) -> None:
    model = load(build(vocab_size=SIZE + 64))
    assert model.card.vocabulary == SIZE + 64
    assert model.tokenizer.allowed(SIZE + 64).sum() <= SIZE


def test_logits_that_are_capped(build: Build) -> None:
    with pytest.raises(InvalidInputError, match="not its head times its last hidden state"):
        load(build("gemma2"))


def test_a_model_that_sees_what_comes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=SIZE, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    byte_pairs().save_pretrained(tmp_path)
    with pytest.raises(InvalidInputError, match="see what comes after them"):
        load(tmp_path)


def test_states_that_are_not_finite(tmp_path: Path) -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[byte_pairs()("z").input_ids[0]] = torch.nan
    model.save_pretrained(tmp_path)
    byte_pairs().save_pretrained(tmp_path)
    with pytest.raises(InvalidInputError, match="not finite"):
        next(load(tmp_path).states(["a z"]))


def test_other_families_generate_nothing() -> None:
    with pytest.raises(InvalidInputError, match="generates no text"):
        CausalModel(EncoderSettings(family="use"))


def test_a_slow_tokenizer() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(InvalidInputError, match="fast tokenizer"):
        CausalTokenizer.of(Slow(), frozenset())
