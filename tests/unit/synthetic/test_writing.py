"""A real small language model writes texts like those that it is shown."""

from __future__ import annotations

import pytest

from sealign.encoders import EncoderSettings
from sealign.errors import InvalidInputError
from sealign.synthetic.writing import CausalWriter
from tests.support.small_lms import small_lm

EXAMPLES = [["the film is a bore", "the actors are very good"], ["i liked the music of this film"]] * 20


@pytest.fixture(scope="module")
def settings() -> EncoderSettings:
    return EncoderSettings.parse(f"transformers:{small_lm('one')}?device=cpu&threads=1")


def test_texts_are_lines_of_words_and_the_seed_decides_them(settings: EncoderSettings) -> None:
    told: list[int] = []
    texts = CausalWriter(settings, "Film reviews.", tokens=12, seed=3)(EXAMPLES, told.append)
    assert sum(told) == len(EXAMPLES)
    assert 10 < len(texts) <= len(EXAMPLES)
    assert len(set(texts)) > 0.9 * len(texts)
    for text in texts:
        assert len(text.split()) >= 3
        assert text.isprintable()
        assert text == text.strip()
    again = CausalWriter(settings, "Film reviews.", tokens=12, seed=3)
    assert again(EXAMPLES, told.append) == texts
    assert again(EXAMPLES, told.append) != texts


def test_long_examples_leave_room_and_too_many_tokens_are_refused(settings: EncoderSettings) -> None:
    long = [["a very long story " * 400] * 5] * 3
    assert len(CausalWriter(settings, "x " * 900, tokens=8)(long, lambda _: None)) <= 3
    with pytest.raises(InvalidInputError, match="no room for texts of 400 tokens"):
        CausalWriter(settings, tokens=400)
