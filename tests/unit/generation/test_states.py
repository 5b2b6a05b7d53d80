from __future__ import annotations

import numpy as np
import pytest

from sealign.alignment import RidgeStatistics
from sealign.encoders import EncoderSettings
from sealign.encoders.causal import CausalModel
from sealign.encoders.tokenizer import Tokens
from sealign.errors import InvalidInputError
from sealign.generation.states import TOKENS_PER_TEXT, add_rows, client_rows, counted, silo_rows
from tests.support import small_lms

LONG = " ".join(small_lms.public_texts(12))


def test_each_row_of_the_client_has_read_exactly_what_the_silo_has(three: CausalModel, two: CausalModel) -> None:
    (text,) = small_lms.public_texts(1)
    (rows,) = client_rows(three, two.tokenizer, [text])
    tokens = two.tokenizer.encode(text)
    assert len(rows) == len(counted(tokens)) == len(tokens)
    inexact = 0
    for row, end in zip(rows, tokens.ends, strict=True):
        (read,) = three.states([text[:end]])
        inexact += end not in three.tokenizer.encode(text).ends
        np.testing.assert_allclose(row, read.states[-1], atol=1e-4)
    assert inexact > 10


def test_rows_of_the_silo_and_what_follows(two: CausalModel) -> None:
    told: list[int] = []
    short, long = silo_rows(two, ["the film", LONG], progress=told.append)
    tokens = two.tokenizer.encode(LONG)
    assert len(long.states) == len(long.following) == TOKENS_PER_TEXT < len(tokens)
    np.testing.assert_array_equal(long.following, tokens.ids[1 : TOKENS_PER_TEXT + 1])
    (read,) = two.states([LONG], most=TOKENS_PER_TEXT)
    np.testing.assert_allclose(long.states, read.states, atol=1e-4)
    assert short.following[-1] == -1
    assert told == [len(short.states), TOKENS_PER_TEXT + 1]


def test_parts_of_a_character_give_one_row() -> None:
    offsets = np.array([[0, 1], [1, 2], [1, 2], [1, 2], [2, 5]])
    assert counted(Tokens(np.arange(5), offsets)).tolist() == [0, 3, 4]
    many = np.arange(TOKENS_PER_TEXT + 9)
    assert counted(Tokens(many, np.stack([many, many + 1], axis=1))).tolist() == list(range(TOKENS_PER_TEXT))


def test_leading_space(three: CausalModel, two: CausalModel) -> None:
    (rows,) = client_rows(three, two.tokenizer, ["   \n  a film"])
    assert np.isfinite(rows).all()


def test_statistics_stream(one: CausalModel, two: CausalModel) -> None:
    texts = small_lms.public_texts(8)
    streamed = RidgeStatistics(one.card.dimension, two.card.dimension)
    add_rows(streamed, client_rows(one, two.tokenizer, texts), silo_rows(two, texts))
    whole = RidgeStatistics(one.card.dimension, two.card.dimension)
    whole.update(
        np.concatenate(list(client_rows(one, two.tokenizer, texts))),
        np.concatenate([rows.states for rows in silo_rows(two, texts)]),
    )
    assert streamed.rows == whole.rows > 300
    np.testing.assert_allclose(streamed.moments(0, 1).xy, whole.moments(0, 1).xy, atol=1e-6)


def test_sides_that_read_different_texts(one: CausalModel, two: CausalModel) -> None:
    texts = small_lms.public_texts(3)
    statistics = RidgeStatistics(one.card.dimension, two.card.dimension)
    with pytest.raises(InvalidInputError, match="numbers of public texts"):
        add_rows(statistics, client_rows(one, two.tokenizer, texts[:2]), silo_rows(two, texts))
    with pytest.raises(InvalidInputError, match="embed the same texts"):
        add_rows(statistics, client_rows(one, two.tokenizer, texts[1:]), silo_rows(two, texts[:2]))


def test_a_text_that_the_client_cannot_read_whole(two: CausalModel) -> None:
    narrow = CausalModel(EncoderSettings(model=str(small_lms.small_lm("one")), max_length=64, device="cpu", threads=1))
    with pytest.raises(InvalidInputError, match=r"text 1 has more tokens than one reads \(64\)"):
        list(client_rows(narrow, two.tokenizer, ["short", LONG]))
