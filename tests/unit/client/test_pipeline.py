"""The pipeline: the same shapes as transformers' own, for every way of calling it, and the client's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sealign_client
from sealign_client import Client, InvalidInputError
from sealign_client.pipelines import TextClassificationPipeline
from tests.support.fakesilo import LABELS, Address, FakeSilo
from tests.support.tiny_models import SMALL, byte_tokenizer
from tests.support.views import PUBLIC, client_encoder

TEXTS = ["first", "second", "third"]


@pytest.fixture
def pipe(address: Address, tmp_path: Path) -> Iterator[TextClassificationPipeline]:
    settings = address.settings(map_directory=tmp_path / "maps", encoder=client_encoder())
    with sealign_client.pipeline("text-classification", **settings) as pipe:
        pipe.client.align(PUBLIC)
        yield pipe


@pytest.fixture(scope="module")
def theirs() -> Any:
    """A text-classification pipeline of transformers, around a tiny random model with the same labels."""
    import transformers

    names = dict(enumerate(LABELS))
    config = transformers.AutoConfig.for_model("bert", **SMALL, num_labels=len(names), id2label=names)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    return transformers.pipeline("text-classification", model=model, tokenizer=byte_tokenizer(), device="cpu")


def shape(found: Any) -> Any:
    """What an answer consists of, its numbers and labels aside."""
    if isinstance(found, list):
        return [shape(item) for item in found]
    return {name: type(value) for name, value in found.items()}


@pytest.mark.parametrize("given", ["one text", ["one text"], TEXTS], ids=["text", "list of one", "list"])
@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}, {"function_to_apply": "none"}])
def test_answers_have_the_shape_of_transformers(
    pipe: TextClassificationPipeline, theirs: Any, given: Any, options: dict[str, Any]
) -> None:
    assert shape(pipe(given, **options)) == shape(theirs(given, **options))


def test_an_iterator_gives_an_iterator(pipe: TextClassificationPipeline, theirs: Any) -> None:
    ours, wanted = (call((text for text in TEXTS), top_k=2) for call in (pipe, theirs))
    assert not isinstance(ours, list)
    assert [shape(item) for item in ours] == [shape(item) for item in wanted]


def test_scores_are_the_clients_and_the_largest_comes_first(pipe: TextClassificationPipeline) -> None:
    expected = pipe.client.classify(TEXTS)
    for found, result in zip(pipe(TEXTS, top_k=None), expected, strict=True):
        assert found[0]["label"] == result.label
        assert sorted(score["label"] for score in found) == sorted(LABELS)
        values = [score["score"] for score in found]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1)
        assert values[0] == pytest.approx(result.probability, abs=0.02)
    for found, result in zip(pipe(np.array(TEXTS), function_to_apply="none"), expected, strict=True):
        assert found["score"] == pytest.approx(max(result.logits), abs=2 / 64)


def test_without_calibration_scores_are_a_softmax(pipe: TextClassificationPipeline, fake: FakeSilo) -> None:
    fake.calibrated = False
    pipe.client.describe(refresh=True)
    with pytest.warns(UserWarning, match="without probabilities"):
        (found,) = pipe(["first"], top_k=None)
    logits = {score["label"]: score["score"] for score in pipe(["first"], top_k=None, function_to_apply="none")[0]}
    values = np.array([logits[score["label"]] for score in found])
    assert [score["score"] for score in found] == pytest.approx(np.exp(values) / np.exp(values).sum(), abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"top_k": 0}, "top_k"), ({"top_k": "two"}, "top_k"), ({"function_to_apply": "tanh"}, "function_to_apply")],
)
def test_options_are_checked(pipe: TextClassificationPipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        pipe("text", **options)


def test_how_a_pipeline_is_made(address: Address) -> None:
    with pytest.raises(InvalidInputError, match="no pipeline 'translation'"):
        sealign_client.pipeline("translation", silo="localhost:1", encoder="use")
    with Client(**address.settings(), encoder=client_encoder()) as client:
        with pytest.raises(InvalidInputError, match="not both: silo"):
            sealign_client.pipeline(client=client, silo="localhost:1")
        assert sealign_client.pipeline("sentiment-analysis", client=client).client is client
