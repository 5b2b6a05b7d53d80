"""What every encoder refuses, and that a refusal never quotes the text."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealign.encoders import Encoder, EncoderSettings, as_texts, embed, load_encoder
from sealign.encoders.checks import MAX_CHARACTERS, checked_embeddings
from sealign.errors import InvalidInputError

from .conftest import TinyModel


@pytest.fixture(params=["minilm", "use"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    chosen: Encoder = request.getfixturevalue(request.param)
    return chosen


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        (b"secret", "bytes"),
        (None, "NoneType"),
        ("secret \ud800", "surrogate"),
        ("s" * (MAX_CHARACTERS + 1), "1,000,001 characters"),
    ],
)
def test_bad_texts_are_named_by_index(encoder: Encoder, bad: Any, part: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^text 3 .*{part}") as caught:
        encoder.encode(["good", "also good", bad])
    assert "secret" not in str(caught.value)
    assert np.isfinite(encoder.encode(["good"])).all()


def test_one_string_is_not_a_list_of_texts(encoder: Encoder) -> None:
    with pytest.raises(InvalidInputError, match="list"):
        encoder.encode("hello")


def test_no_texts(encoder: Encoder) -> None:
    vectors = encoder.encode([])
    assert vectors.shape == (0, encoder.card.dimension)
    assert vectors.dtype == np.float32


def test_huge_text_is_quick(encoder: Encoder) -> None:
    started = time.perf_counter()
    huge = ["ab " * (MAX_CHARACTERS // 3), "x" * MAX_CHARACTERS]
    with pytest.raises(InvalidInputError, match="of 2 texts are longer"):
        encoder.encode(huge)
    assert len(embed(encoder, huge, long_texts="truncate").rows) == 2
    assert time.perf_counter() - started < 20  # read whole, the sentence encoder takes a minute


def test_text_that_the_tokenizer_removes(minilm: Encoder) -> None:
    with pytest.raises(InvalidInputError, match="text 2 holds only characters"):
        minilm.encode(["good", "\u200b\u200b"])


def test_text_without_tokens_in_a_causal_model(tiny_model: TinyModel) -> None:
    encoder = load_encoder(EncoderSettings(model=str(tiny_model("gpt2", pad=False))))
    assert np.isfinite(encoder.encode(["unknown words"])).all()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_valid_unicode_is_refused_only_when_blank(text: str) -> None:
    if text.strip():
        as_texts([text])
    else:
        with pytest.raises(InvalidInputError):
            as_texts([text])


def test_vectors_without_a_direction_are_refused() -> None:
    vectors = np.eye(3, dtype=np.float32) * np.float32(1e30)
    np.testing.assert_allclose(checked_embeddings(vectors, shape=(3, 3), normalise=True, encoder="e"), np.eye(3))
    vectors[1] = 0
    with pytest.raises(InvalidInputError, match="text 2 "):
        checked_embeddings(vectors, shape=(3, 3), normalise=True, encoder="e")
    with pytest.raises(InvalidInputError, match="promises 4 dimensions"):
        checked_embeddings(vectors, shape=(3, 4), normalise=True, encoder="e")
