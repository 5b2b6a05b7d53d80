"""Two encoders side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.encoders import EncoderSettings, load_encoder
from sealign.errors import InvalidInputError
from tests.unit.encoders.conftest import TinyModel

TEXTS = ["red apple", "three green plum", "fig", "seven blue pear", "one red fig"]


@pytest.fixture
def named(tiny_model: TinyModel, tmp_path: Path) -> tuple[str, str]:
    """Names of two tiny models, of 16 dimensions each."""
    gpt2, llama = (tiny_model(kind, name=kind) for kind in ("gpt2", "llama"))
    return f"transformers:{gpt2}?pooling=mean", f"transformers:{llama}?pooling=last"


def test_rows_are_both_encoders_rows_and_of_norm_one(named: tuple[str, str]) -> None:
    first, second = (load_encoder(EncoderSettings.parse(name)) for name in named)
    joined = load_encoder(EncoderSettings.parse("+".join(named)))
    told: list[int] = []
    rows = joined.encode(TEXTS, progress=told.append)
    assert joined.card.dimension == rows.shape[1] == first.card.dimension + second.card.dimension
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    expected = np.concatenate([first.encode(TEXTS), second.encode(TEXTS)], axis=1) / np.sqrt(2)
    assert np.allclose(rows, expected, atol=1e-5)
    assert sum(told) == len(TEXTS)
    assert joined.encode([]).shape == (0, joined.card.dimension)


def test_the_fingerprint_covers_both_and_their_order(named: tuple[str, str]) -> None:
    prints = {
        load_encoder(EncoderSettings.parse(name)).card.fingerprint
        for name in (*named, "+".join(named), "+".join(reversed(named)), f"{named[0]}+{named[1]}&max_length=16")
    }
    assert len(prints) == 5


def test_what_a_part_refuses_is_refused(named: tuple[str, str]) -> None:
    short = load_encoder(EncoderSettings.parse(f"{named[0]}&max_length=8+{named[1]}"))
    with pytest.raises(InvalidInputError, match=r"longer|tokens"):
        short.encode([*TEXTS, " ".join(["red"] * 20)])
    truncated = short.embed([*TEXTS, " ".join(["red"] * 20)], long_texts="truncate")
    assert truncated.long == (5,)


def test_an_error_of_progress_is_the_callers_own(named: tuple[str, str]) -> None:
    def stop(_: int) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        load_encoder(EncoderSettings.parse("+".join(named))).encode(TEXTS, progress=stop)


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        ("{1}&normalise=false", "Drop normalise=false"),
        ("{0}", "with the same settings"),
        ("{1}&long_texts=split", "Give both the same long_texts"),
        ("transformers:/nowhere", "could not be loaded|nowhere"),
        ("{1}+use", "give two at most"),
    ],
)
def test_pairs_that_cannot_be_joined_are_refused(named: tuple[str, str], second: str, fault: str) -> None:
    with pytest.raises(InvalidInputError, match=fault):
        load_encoder(EncoderSettings.parse(f"{named[0]}+{second.format(*named)}"))


def test_a_plus_inside_a_name_or_an_option_joins_nothing() -> None:
    for name in ("./my+model?pooling=cls", "./model?prompt_text=a+user"):
        assert EncoderSettings.parse(name).beside is None
    joined = EncoderSettings.parse("./my+model?pooling=cls+use:?max_length=64")
    assert joined.beside is not None
    assert (joined.model, joined.beside.family, joined.beside.max_length) == ("./my+model", "use", 64)
    with pytest.raises(InvalidInputError, match="after a plus"):
        EncoderSettings.parse("./model?beside=use")
