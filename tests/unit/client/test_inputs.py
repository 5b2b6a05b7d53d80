"""What may be given as texts: each kind works, in order, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealign.alignment import PublicSet
from sealign.errors import InvalidInputError
from sealign_client import Client
from sealign_client.inputs import checked_public_set, checked_sequence
from tests.support.fakesilo import Address
from tests.support.views import PUBLIC, ViewEncoder, clear_queries, client_encoder

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


@pytest.mark.parametrize("given", [None, "abc", b"abc", Path("public.txt"), {"a", "b"}, {"a": 1, "b": 2}, 7])
def test_a_public_set_is_made_of_texts_in_an_order(given: Any) -> None:
    with pytest.raises(InvalidInputError, match=type(given).__name__):
        PublicSet(given)


def test_a_public_set_of_a_list() -> None:
    assert PublicSet(TEXTS) == PublicSet(tuple(TEXTS)) == PublicSet(text for text in TEXTS)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="line 2 is of type float"):
        PublicSet(("one", 2.5))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="NoneType is no path"):
        PublicSet.from_file(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda client: client.classify("query", task=3), "name of a task is a text"),
        (lambda client: client.classify(np.ones((1, 7), np.float32)), r"shape \(1, 7\)"),
        (lambda client: client.classify(np.ones((1, 24), np.float32)), "normalise"),
        (lambda client: client.classify(np.ones(24, np.float32)), "holds no texts"),
        (lambda client: client.logits(None), "NoneType holds no embeddings"),
        (lambda client: client.logits([[1.0]]), "list holds no embeddings"),
        (lambda client: client.logits(np.ones((1, 24), np.int64)), "array of int64"),
        (lambda client: client.logits(np.ones(24)), r"shape \(24,\)"),
        (lambda client: list(client.generate(None)), "A prompt is a text"),
        (lambda client: list(client.generate("")), "A prompt is a text"),
        (lambda client: list(client.generate("text")), "Name the local causal language model"),
        (lambda client: client.adapt(None), "NoneType"),
        (lambda client: client.forecast(None), "NoneType"),
        (lambda client: list(client.classify_each(None)), "NoneType"),
    ],
)
def test_every_method_refuses_by_name(address: Address, use: Any, message: str) -> None:
    with Client(**address.settings(), encoder=client_encoder()) as client:
        client.align(PUBLIC)
        with pytest.raises(InvalidInputError, match=message):
            use(client)


def test_what_a_client_is_made_of() -> None:
    silo = {"silo": "silo.example:7443"}
    for encoder in (3, object(), type("NoCard", (), {"encode": print, "card": None})()):
        with pytest.raises(InvalidInputError, match="is not an encoder"):
            Client(**silo, encoder=encoder)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"str is no ClientSettings"):
        Client("silo.example:7443")  # type: ignore[arg-type]


def test_a_plug_ins_rows_are_checked(address: Address) -> None:
    class Short(ViewEncoder):
        def encode(self, texts: Any, **_: Any) -> Any:
            return np.ones((len(texts), 3), np.float32)

    shape = r"gave an array of shape \(2000, 3\)"
    with (
        Client(**address.settings(), encoder=Short("short", 24)) as client,
        pytest.raises(InvalidInputError, match=shape),
    ):
        client.align(PUBLIC)


def test_results_carry_every_label(address: Address) -> None:
    with Client(**address.settings(), encoder=client_encoder()) as client:
        client.align(PUBLIC)
        result = client.classify("query")
    assert result.labels[result.index] == result.label
    assert result.probabilities is not None
    assert tuple(result.probabilities) == result.labels
    assert result.probabilities[result.label] == result.probability == max(result.probabilities.values())


def test_embeddings_are_classified_as_their_texts_are(address: Address) -> None:
    encoder, texts = client_encoder(), clear_queries(40)
    with Client(**address.settings(), encoder=encoder) as client:
        client.align(PUBLIC)
        done: list[int] = []
        results = client.classify(encoder.encode(texts), progress=done.append)
        assert [result.label for result in results] == [result.label for result in client.classify(texts)]
        assert sum(done) == 40
