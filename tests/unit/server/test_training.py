"""Training and importing heads from labelled files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sealign.alignment import MappedChannel, PublicSet
from sealign.encoders import Embeddings, EncoderCard, EncoderSettings
from sealign.errors import InvalidInputError, StorageError
from sealign.files import save_arrays
from sealign.heads import head_behind
from sealign.shipped import outlier_texts
from sealign_server.cli import app
from sealign_server.store import SiloStore
from sealign_server.training import embedding
from sealign_server.training.embedding import add_public_set
from sealign_server.training.tasks import TrainingData, import_task, outlier_rows, train_task
from tests.unit.server.conftest import SILO_DIMENSION

LABELS = ["up", "down"] * 20
TEXTS = [f"{label} and {'away' if label == 'up' else 'under'} {number}" for number, label in enumerate(LABELS)]


class WordCounts:
    """Embeds a text as its counts of words, hashed."""

    def __init__(self, card: EncoderCard) -> None:
        self.card = card

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        rows = np.full((len(texts), self.card.dimension), 0.01, np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                rows[row, sum(word.encode()) % self.card.dimension] += 1
        if progress is not None:
            progress(len(texts))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(autouse=True)
def _encoder(store: SiloStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "load_encoder", lambda _: WordCounts(store.document.encoder_card))


def ignore(count: int) -> None:
    """Progress that nobody watches."""


def unembedded(count: int) -> None:
    """What can be refused is refused before anything is embedded."""
    raise AssertionError(f"{count} texts were embedded")


def data(labels: Sequence[str] = LABELS, texts: Sequence[str] = TEXTS, **fields: Any) -> TrainingData:
    return TrainingData(labels, texts, **fields)


def test_a_task_is_trained_and_kept(store: SiloStore) -> None:
    head = train_task(store, "direction", "where to", data(), ignore)
    assert head.head.labels == ("down", "up")
    task = store.tasks.load("direction")
    assert task.description == "where to"
    assert np.array_equal(task.trained.head.weight, head.head.weight)


def test_the_stages_after_embedding_tell_each_step(store: SiloStore) -> None:
    """Thousands of classes take minutes there."""
    told: dict[str, list[int]] = {}

    @contextmanager
    def steps(what: str, count: int) -> Iterator[Callable[[int], None]]:
        told[what] = [count, 0]

        def step(more: int) -> None:
            told[what][1] += more

        yield step

    train_task(store, "direction", "", data(), ignore, steps)
    (most, fitted), (expected, measured) = told["training"], told["measuring"]
    assert 3 <= fitted <= most
    assert measured == expected
    assert list(told) == ["training", "measuring"]


def test_texts_are_embedded_once(store: SiloStore, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    first = train_task(store, "direction", "", data(), counts.append)
    monkeypatch.setattr(embedding, "load_encoder", lambda _: None)  # nothing is to be embedded
    again = train_task(store, "direction", "", data(), counts.append)
    assert counts == [len(TEXTS), 2] * 2  # and the names of both labels
    assert np.array_equal(first.head.weight, again.head.weight)


def test_outliers_are_general_texts_and_no_public_ones(store: SiloStore) -> None:
    """Public texts may be of the task's own kind."""
    add_public_set(store, "public", PublicSet(tuple(TEXTS)), ignore)
    encoder = WordCounts(store.document.encoder_card)
    for given, expected in ((None, outlier_texts()), (TEXTS[:20], TEXTS[:20])):
        found = outlier_rows(store, TrainingData(LABELS, TEXTS, outliers=given))
        assert np.array_equal(found, encoder.encode(expected))


def test_examples_to_share_are_drawn_without_labels(store: SiloStore) -> None:
    twice, labels = TEXTS + TEXTS[:10], LABELS + LABELS[:10]
    train_task(store, "direction", "", data(labels, twice, seed=1, share=12), ignore)
    examples = store.tasks.examples("direction")
    assert examples is not None
    assert len(set(examples.texts)) == 12
    assert set(examples.texts) < set(TEXTS)
    expected = WordCounts(store.document.encoder_card).encode(examples.texts)
    assert np.array_equal(examples.embeddings, expected)
    assert json.loads(shared_path(store).read_bytes()) == {"texts": list(examples.texts)}
    # The seed decides; without a number the texts of the earlier training are not shared.
    train_task(store, "direction", "", data(seed=2, share=12), ignore)
    other = store.tasks.examples("direction")
    assert other is not None
    assert other.texts != examples.texts
    train_task(store, "direction", "", data(), ignore)
    assert store.tasks.examples("direction") is None
    with pytest.raises(InvalidInputError, match="41 texts cannot be shared of 40 distinct ones"):
        train_task(store, "direction", "", data(labels, twice, share=41), ignore)
    with pytest.raises(InvalidInputError, match="at most 128"):
        train_task(store, "direction", "", data(share=129), ignore)


def shared_path(store: SiloStore) -> Path:
    return store.directory / "tasks" / "direction" / str(store.tasks.version("direction")) / "shared.json"


def test_shared_examples_that_were_changed_are_noticed(store: SiloStore) -> None:
    train_task(store, "direction", "", data(share=3), ignore)
    shared_path(store).write_text('{"texts": ["another"]}')
    with pytest.raises(StorageError, match="train the task again"):
        store.tasks.examples("direction")
    shared_path(store).write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        store.tasks.examples("direction")


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["up"] * 40, "at least two classes"), (["up"] * 39 + ["down"], "1 of 2 classes have one row only: 'down'")],
)
def test_a_head_with_missing_classes_is_refused(store: SiloStore, labels: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        train_task(store, "direction", "", data(labels), unembedded)
    assert store.tasks.names() == ["colours"]


def test_a_class_of_two_rows_gets_a_head_fitted_to_maps(store: SiloStore) -> None:
    """Each fold's others hold one of them, which has to be enough to train on."""
    labels, texts = [*LABELS, "aside", "aside"], [*TEXTS, "aside from it", "aside of it"]
    trained = train_task(store, "direction", "", data(labels, texts), ignore)
    profile = store.tasks.load("direction").profile
    assert profile is not None
    assert profile.statistics.counts.tolist() == [2, 20, 20]
    blurred = MappedChannel.blur(profile.statistics.mean, profile.statistics.total, 1.0)
    served = head_behind(blurred, trained.head, profile)
    assert served.fitted
    rows = WordCounts(store.document.encoder_card).encode(["aside by it"])
    assert served.head.head.labels[int(served.head.head.logits(rows).argmax())] == "aside"


def test_a_changed_encoder_is_noticed(store: SiloStore, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = store.document.encoder_card.model_copy(update={"fingerprint": "0" * 64})
    monkeypatch.setattr(embedding, "load_encoder", lambda _: WordCounts(changed))
    with pytest.raises(InvalidInputError, match="the silo's encoder has changed"):
        train_task(store, "direction", "", data(), ignore)


def test_creating_a_silo_records_its_encoder(tmp_path: Path, store: SiloStore) -> None:
    created = embedding.create_silo(tmp_path / "new", "new", EncoderSettings(family="use"))
    assert created.document.encoder_card == store.document.encoder_card


def test_an_imported_head_is_calibrated_on_the_data(store: SiloStore, tmp_path: Path) -> None:
    trained = train_task(store, "direction", "", data(), ignore)
    path = tmp_path / "linear.safetensors"
    arrays = {"weight": trained.head.weight.T, "bias": trained.head.bias}
    save_arrays(path, arrays, {"labels": '["down", "up"]'})
    imported = import_task(store, "imported", "", path, data(share=5), ignore)
    examples = store.tasks.examples("imported")
    assert examples is not None
    assert len(examples.texts) == 5
    # Whatever scale a head comes with, its temperature is divided out.
    assert np.allclose(imported.head.weight * imported.temperature, trained.head.weight)
    assert imported.held_out_rows == len(TEXTS)
    assert store.tasks.names() == ["colours", "direction", "imported"]


def test_an_imported_head_must_fit_encoder_and_labels(store: SiloStore, tmp_path: Path) -> None:
    path = tmp_path / "linear.safetensors"
    save_arrays(path, {"weight": np.ones((2, 5)), "bias": np.ones(2)}, {"labels": '["down", "up"]'})
    with pytest.raises(InvalidInputError, match=f"takes 5 dimensions, the silo's encoder gives {SILO_DIMENSION}"):
        import_task(store, "imported", "", path, data(), ignore)
    save_arrays(path, {"weight": np.ones((2, SILO_DIMENSION)), "bias": np.ones(2)}, {"labels": '["left", "right"]'})
    with pytest.raises(InvalidInputError, match="not classes of the head"):
        import_task(store, "imported", "", path, data(), ignore)
    save_arrays(path, {"weight": np.ones((2, SILO_DIMENSION)), "bias": np.ones(2)}, {})
    with pytest.raises(InvalidInputError, match="does not name its classes"):
        import_task(store, "imported", "", path, data(), ignore)
    assert store.tasks.names() == ["colours"]


def test_an_imported_head_with_a_rare_class_is_served_as_it_is_and_the_operator_hears(
    store: SiloStore, tmp_path: Path
) -> None:
    trained = train_task(store, "direction", "", data(), ignore)
    head, examples = tmp_path / "linear.safetensors", tmp_path / "examples.tsv"
    arrays = {"weight": np.ascontiguousarray(trained.head.weight.T), "bias": trained.head.bias}
    save_arrays(head, arrays, {"labels": '["down", "up"]'})
    lines = [f"{label}\t{text}\n" for label, text in zip(LABELS, TEXTS, strict=True) if label == "up"]
    examples.write_text("".join(["label\ttext\n", *lines, f"down\t{TEXTS[3]}\n"]), encoding="utf-8")
    given = [store.directory, "--task", "imported", "--data", examples, "--head", head]
    result = CliRunner().invoke(app, ["train", *map(str, given)])
    assert result.exit_code == 0, result.output
    assert "warning: 1 classes have fewer than two texts in" in result.stderr
    assert "'down'" in result.stderr
    assert store.tasks.load("imported").profile is None
