from __future__ import annotations

import pytest
from pydantic import ValidationError

from sealign.encoders import EncoderCard, EncoderSettings
from sealign.errors import InvalidInputError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("transformers:owner/model", EncoderSettings(model="owner/model")),
        ("owner/model", EncoderSettings(model="owner/model")),
        ("./a/dir?pooling=cls", EncoderSettings(model="./a/dir", pooling="cls")),
        ("C:\\models\\a", EncoderSettings(model="C:\\models\\a")),
        ("use", EncoderSettings(family="use")),
        ("use:", EncoderSettings(family="use")),
        ("use:?threads=2", EncoderSettings(family="use", threads=2)),
        (
            "m?max_length=128&normalise=false&device=cuda:1&revision=v2&batch_size=4",
            EncoderSettings(
                model="m",
                max_length=128,
                normalise=False,
                device="cuda:1",
                revision="v2",
                batch_size=4,
            ),
        ),
    ],
)
def test_parse(spec: str, expected: EncoderSettings) -> None:
    assert EncoderSettings.parse(spec) == expected


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("", "not named"),
        ("  ", "not named"),
        ("?pooling=cls", "not named"),
        ("m?pooling=median", "pooling"),
        ("m?long_texts=cut", "long_texts"),
        ("m?prompt=query&prompt_text=query:", "not both"),
        ("m?colour=red", "colour"),
        ("m?pooling=cls&pooling=mean", "twice"),
        ("m?family=use", "twice"),
        ("m?max_length=0", "max_length"),
        ("m?max_length=many", "max_length"),
        ("m?device=tpu", "device"),
        ("m?pooling", "option=value"),
    ],
)
def test_parse_refuses(spec: str, part: str) -> None:
    with pytest.raises(InvalidInputError, match=part):
        EncoderSettings.parse(spec)


def test_settings_and_cards_are_frozen_and_checked() -> None:
    with pytest.raises(ValidationError):
        EncoderSettings.model_validate({"model": "m", "colour": "red"})
    card = EncoderCard(name="m", dimension=3, fingerprint="0" * 64)
    with pytest.raises(ValidationError):
        card.dimension = 4
    for wrong in ({"dimension": 0}, {"fingerprint": "0" * 63}, {"fingerprint": "G" * 64}):
        with pytest.raises(ValidationError):
            EncoderCard.model_validate(card.model_dump() | wrong)
