"""What may be given as texts: each kind works, in order, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealign.alignment import PublicSet
from sealign.errors import InvalidInputError
from sealign_client.inputs import checked_public_set, checked_sequence

TEXTS = ["one", "two", "three"]


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        tuple(TEXTS),
        iter(TEXTS),
        (text for text in TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        PublicSet(tuple(TEXTS)),
    ],
    ids=lambda given: type(given).__name__,
)
def test_texts_come_in_order(given: Any) -> None:
    texts = checked_sequence(given)
    assert texts == TEXTS
    assert {type(text) for text in texts} == {str}


def test_one_string_is_one_text() -> None:
    assert checked_sequence("one two") == ["one two"]


def test_a_series_comes_by_position_whatever_its_index() -> None:
    pandas = pytest.importorskip("pandas")
    assert checked_sequence(pandas.Series(TEXTS, index=[2, 0, 1])) == TEXTS
    assert checked_sequence(pandas.Series([*TEXTS, None]).dropna()) == TEXTS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "NoneType"),
        (7, "int"),
        (b"bytes", "bytes"),
        ({"one", "two"}, "set"),
        ({"one": 1}, "dict"),
        (Path("texts.txt"), "Open the file"),
        (np.zeros((2, 3), np.float32), "client.logits"),
        (np.array([["one"]]), "shape"),
        (["one", None], "Item 1 is of type NoneType"),
        (["one", 2.5], "Item 1 is of type float"),
        ([b"one"], "Item 0 is of type bytes"),
    ],
)
def test_anything_else_is_refused_by_name(given: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        checked_sequence(given)


def test_frames_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InvalidInputError, match="DataFrame"):
        checked_sequence(pandas.DataFrame({"text": TEXTS}))


@pytest.mark.parametrize("given", ["public.txt", Path("public.txt"), TEXTS, None])
def test_a_public_set_is_a_public_set(given: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"PublicSet\.from_file"):
        checked_public_set(given)
