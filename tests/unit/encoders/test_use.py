from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sealign.encoders import Encoder, EncoderSettings, embed, load_encoder
from sealign.encoders.checks import MAX_CHARACTERS
from sealign.errors import InvalidInputError


def test_use_knows_what_is_related(use: Encoder) -> None:
    oil, crude, cat, chat = use.encode(
        [
            "Oil prices rose after the producers agreed to cut output.",
            "Crude became more expensive when exporters reduced production.",
            "The cat is sleeping on the sofa.",
            "Le chat dort sur le canapé.",
        ]
    )
    assert use.card.dimension == 512
    assert use.card.normalised
    assert oil @ crude > 0.2 + oil @ cat
    assert cat @ chat > 0.7  # it is multilingual


def test_one_by_one_equals_together(use: Encoder) -> None:
    texts = [f"sentence number {number} of several" * (number + 1) for number in range(40)]
    told: list[int] = []
    together = use.encode(texts, progress=told.append)
    assert told == [32, 8]
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    one_by_one = np.concatenate([use.encode([text]) for text in texts])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


def test_max_length_bounds_characters(use: Encoder) -> None:
    text = "several words " * (MAX_CHARACTERS // 14)
    with pytest.raises(InvalidInputError, match=r"1 of 2 texts are longer than the 8,192 characters .*text 2"):
        use.encode(["short", text])
    cut = embed(use, ["short", text], long_texts="truncate")
    assert cut.long == (1,)
    np.testing.assert_allclose(cut.rows[1:], use.encode([text[:8192]]), atol=1e-6)


def test_fingerprint_follows_the_settings(use: Encoder) -> None:
    assert load_encoder(EncoderSettings.parse("use?threads=2&batch_size=1")).card == use.card
    assert load_encoder(EncoderSettings.parse("use?max_length=64")).card != use.card


@pytest.mark.parametrize(
    "option",
    [{"model": "large"}, {"pooling": "cls"}, {"normalise": False}, {"device": "cuda"}],
)
def test_settings_it_does_not_have(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(option))):
        load_encoder(EncoderSettings(family="use", **option))
