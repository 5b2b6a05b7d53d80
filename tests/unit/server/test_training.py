"""Training and importing heads from labelled files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from sealign.encoders import Embeddings, EncoderCard, EncoderSettings
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.files import save_arrays
from sealign.labelled import read_labelled
from sealign_server.store import SiloStore
from sealign_server.training import embedding
from sealign_server.training.tasks import TrainingData, import_task, train_task
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


def test_labels_and_texts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_bytes('label\ttext\nearn\tit "rose" 5 %\ngrän\tWeizen, Öl\r\n'.encode())
    assert read_labelled(path) == (["earn", "grän"], ['it "rose" 5 %', "Weizen, Öl"])


def test_long_documents_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("label\ttext\nearn\t" + "x" * 200_000)
    ((label,), (text,)) = read_labelled(path)
    assert (label, len(text)) == ("earn", 200_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1 must be the header"),
        (b"earn\ttext\n", "line 1 must be the header"),
        (b"label,text\nearn,it rose\n", "line 1 must be the header"),
        (b"label\ttext\nearn it rose\n", "line 2 must be a label, a tab and a text"),
        (b"label\ttext\nearn\tit rose\nearn\t\n", "line 3 must be a label, a tab and a text"),
        (b"label\ttext\n\tit rose\n", "line 2"),
        (b"label\ttext\nearn\tit\trose\n", "line 2"),
        (b"label\ttext\nearn\tit rose\n\n", "line 3"),
        (b"label\ttext\nearn\tit r\xf6se\n", "is not UTF-8"),
    ],
)
def test_bad_files_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data.tsv"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        read_labelled(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        read_labelled(tmp_path / "nowhere.tsv")
    with pytest.raises(StorageError, match="could not read"):
        read_labelled(tmp_path)


def test_a_task_is_trained_and_kept(store: SiloStore) -> None:
    head = train_task(store, "direction", "where to", LABELS, TEXTS, ignore)
    assert head.head.labels == ("down", "up")
    document, kept = store.load_task("direction")
    assert document.description == "where to"
    assert np.array_equal(kept.head.weight, head.head.weight)


def test_texts_to_release_are_drawn_without_labels(store: SiloStore) -> None:
    twice = TEXTS + TEXTS[:10]
    train_task(store, "direction", "", LABELS + LABELS[:10], twice, ignore, seed=1, release=12)
    released = store.load_released("direction")
    assert released is not None
    assert len(set(released.texts)) == 12
    assert set(released.texts) < set(TEXTS)
    expected = WordCounts(store.document.encoder_card).encode(released.texts)
    assert np.array_equal(released.embeddings, expected)
    directory = store.directory / "tasks" / "direction"
    assert json.loads((directory / "released.json").read_bytes()) == {"texts": list(released.texts)}
    for name in ("released.json", "released.safetensors"):
        assert (directory / name).stat().st_mode & 0o777 == 0o600
    # The seed decides; without a number the texts of the earlier training are forgotten.
    train_task(store, "direction", "", LABELS, TEXTS, ignore, seed=2, release=12)
    other = store.load_released("direction")
    assert other is not None
    assert other.texts != released.texts
    train_task(store, "direction", "", LABELS, TEXTS, ignore)
    assert store.load_released("direction") is None
    with pytest.raises(InvalidInputError, match="41 texts cannot be released of 40 distinct ones"):
        train_task(store, "direction", "", LABELS + LABELS[:10], twice, ignore, release=41)


def test_released_texts_that_were_changed_are_noticed(store: SiloStore) -> None:
    train_task(store, "direction", "", LABELS, TEXTS, ignore, release=3)
    path = store.directory / "tasks" / "direction" / "released.json"
    path.write_text('{"texts": ["another"]}')
    with pytest.raises(StorageError, match="train the task again"):
        store.load_released("direction")
    path.write_text("{")
    with pytest.raises(StorageError, match="train the task again"):
        store.load_released("direction")


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["up"] * 40, "at least two classes"), (["up"] * 39 + ["down"], "class 'down' has 1 rows")],
)
def test_a_head_with_missing_classes_is_refused(store: SiloStore, labels: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        train_task(store, "direction", "", labels, TEXTS, ignore)
    assert store.task_names() == ["colours"]


def test_a_changed_encoder_is_noticed(store: SiloStore, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = store.document.encoder_card.model_copy(update={"fingerprint": "0" * 64})
    monkeypatch.setattr(embedding, "load_encoder", lambda _: WordCounts(changed))
    with pytest.raises(InvalidInputError, match="the silo's encoder has changed"):
        train_task(store, "direction", "", LABELS, TEXTS, ignore)


def test_creating_a_silo_records_its_encoder(tmp_path: Path, store: SiloStore) -> None:
    created = embedding.create_silo(tmp_path / "new", "new", EncoderSettings(family="use"))
    assert created.document.encoder_card == store.document.encoder_card


def test_an_imported_head_is_calibrated_on_the_data(store: SiloStore, tmp_path: Path) -> None:
    trained = train_task(store, "direction", "", LABELS, TEXTS, ignore)
    path = tmp_path / "linear.safetensors"
    arrays = {"weight": trained.head.weight.T, "bias": trained.head.bias}
    save_arrays(path, arrays, {"labels": '["down", "up"]'})
    imported = import_task(store, "imported", "", path, LABELS, TEXTS, ignore, release=5)
    released = store.load_released("imported")
    assert released is not None
    assert len(released.texts) == 5
    assert np.allclose(imported.head.weight, trained.head.weight)
    assert imported.held_out_rows == len(TEXTS)
    assert store.task_names() == ["colours", "direction", "imported"]


def test_an_imported_head_must_fit_encoder_and_labels(store: SiloStore, tmp_path: Path) -> None:
    path = tmp_path / "linear.safetensors"
    save_arrays(path, {"weight": np.ones((2, 5)), "bias": np.ones(2)}, {"labels": '["down", "up"]'})
    with pytest.raises(InvalidInputError, match=f"takes 5 dimensions, the silo's encoder gives {SILO_DIMENSION}"):
        import_task(store, "imported", "", path, LABELS, TEXTS, ignore)
    save_arrays(path, {"weight": np.ones((2, SILO_DIMENSION)), "bias": np.ones(2)}, {"labels": '["left", "right"]'})
    with pytest.raises(InvalidInputError, match="not classes of the head"):
        import_task(store, "imported", "", path, LABELS, TEXTS, ignore)
    save_arrays(path, {"weight": np.ones((2, SILO_DIMENSION)), "bias": np.ones(2)}, {})
    with pytest.raises(InvalidInputError, match="does not name its classes"):
        import_task(store, "imported", "", path, LABELS, TEXTS, ignore)
    assert store.task_names() == ["colours"]
