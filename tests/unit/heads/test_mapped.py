from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import MappedChannel, RidgeStatistics, fit_ridge, weigh_shared
from sealign.errors import InvalidInputError
from sealign.files import load_arrays, save_arrays
from sealign.heads import CalibratedHead, LinearHead, TaskProfile, head_behind, measure_task, train_head

from .planted import CLASSES, DIMENSION, Matrix, Planted

PLANTED = Planted()
CHANNEL, _ = PLANTED.channel(noise=6.0)
ROWS, LABELS = PLANTED.rows(2000, 2)
OWN = train_head(ROWS, LABELS)


def trains(rows: Matrix, labels: Sequence[str]) -> LinearHead:
    return train_head(rows, labels, classes=CLASSES, penalties=[OWN.penalty or 1.0]).head


@lru_cache
def profile() -> TaskProfile:
    return measure_task(
        ROWS,
        LABELS,
        OWN.head,
        trains,
        outliers=PLANTED.public(600, 8),
        directions=3,
    )


def right(head: LinearHead, seed: int, channel: MappedChannel = CHANNEL) -> float:
    rows, labels = PLANTED.rows(20_000, seed)
    answers = np.array(head.labels)[head.logits(channel.apply(rows, seed)).argmax(axis=1)]
    return float(np.mean(answers == np.array(labels)))


@pytest.mark.parametrize("noise", [0.5, 3.0, 6.0])
def test_what_is_promised_holds_for_mapped_rows(noise: float) -> None:
    channel, _ = PLANTED.channel(noise=noise)
    served = head_behind(channel, OWN.head, profile(), directions=3)
    accuracy = right(served.head.head, 11, channel)
    assert served.accuracy == pytest.approx(accuracy, abs=0.04)
    assert served.margin is not None
    assert 0.08 < served.margin < 0.12
    scores = served.head.layout.scores(served.head.outputs(channel.apply(PLANTED.rows(20_000, 12)[0], 3)))
    for name, threshold in served.ood.items():
        assert 0.90 <= np.mean(scores[name] >= threshold) <= 0.985, name


def test_texts_that_the_map_knows_promise_nothing_of_others() -> None:
    """The names of 40 classes weigh thirty times as much as public texts: the promise is of texts that are not names.

    Judged by the noise that the map leaves of what it was learned from, it is far too high.
    """
    random = np.random.default_rng(7)
    classes, dimension = tuple(f"class {number:02}" for number in range(40)), 24
    means, reading = random.normal(size=(40, dimension)), random.normal(size=(dimension, 32))

    def texts(each: int) -> tuple[Matrix, list[str]]:
        rows = np.repeat(means, each, axis=0) + 0.4 * random.normal(size=(40 * each, dimension))
        return rows, [label for label in classes for _ in range(each)]

    def seen(rows: Matrix) -> Matrix:
        return np.asarray(rows @ reading + 6.0 * random.normal(size=(len(rows), 32)))

    public, names = RidgeStatistics(32, dimension), RidgeStatistics(32, dimension)
    general = random.normal(size=(400, dimension))
    public.update(seen(general), general)
    names.update(seen(means), means)
    joined, _ = weigh_shared(public, names, (30.0,))
    learned = fit_ridge(joined, source_fingerprint="s", target_fingerprint="t", public_set="p")
    rows, labels = texts(40)
    own = train_head(rows, labels)
    measured = measure_task(
        rows, labels, own.head, lambda some, named: train_head(some, named, classes=classes, penalties=[1.0]).head
    )
    assert learned.channel is not None
    served = head_behind(learned.channel, own.head, measured)
    rows, labels = texts(100)
    answers = served.head.head.logits(learned.apply(seen(rows))).argmax(axis=1)
    accuracy = float(np.mean(np.array(classes)[answers] == np.array(labels)))
    forgetful = replace(learned.channel, unseen=learned.channel.noise)
    optimistic = head_behind(forgetful, own.head, measured)
    assert served.accuracy is not None
    assert optimistic.accuracy is not None
    assert optimistic.accuracy > accuracy + 0.15
    # The gain still knows the names: what remains is within the margin.
    assert served.margin is not None
    assert abs(served.accuracy - accuracy) < served.margin


def test_it_is_better_behind_a_blurring_map_than_the_trained_head() -> None:
    served = head_behind(CHANNEL, OWN.head, profile(), directions=3)
    assert served.fitted
    assert served.head.layout.outputs == 6
    assert next(iter(served.ood)) == "reject_margin"
    assert right(served.head.head, 11) > right(OWN.head, 11) + 0.02


def test_logits_are_log_probabilities() -> None:
    served = head_behind(CHANNEL, OWN.head, profile())
    rows, _ = PLANTED.rows(20_000, 5)
    logits = served.head.head.logits(CHANNEL.apply(rows, 5))
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    confident = np.mean((probabilities / probabilities.sum(axis=1, keepdims=True)).max(axis=1))
    assert confident == pytest.approx(right(served.head.head, 5), abs=0.04)
    assert 0 < served.precision < 1


def rule(rows: Matrix) -> list[str]:
    return ["a" if row[0] > 3.5 else "b" for row in rows]


def test_an_imported_head_that_is_surely_better_is_served() -> None:
    """The labels are no Gaussian classes: a head that knows the rule beats every discriminant."""
    knowing = LinearHead(np.outer(np.eye(DIMENSION)[0], [40.0, 0.0]), np.array([-140.0, 0.0]), ("a", "b"))
    rows = 2.0 + 2.0 * np.random.default_rng(0).standard_t(2.2, size=(2000, DIMENSION))
    measured = measure_task(rows, rule(rows), knowing, lambda *_: knowing)
    served = head_behind(PLANTED.channel(noise=0.01)[0], knowing, measured)
    assert not served.fitted
    assert not served.head.layout.reject
    np.testing.assert_allclose(np.argmax(served.head.head.logits(rows), 1), np.argmax(knowing.logits(rows), 1))


@pytest.mark.parametrize(("accuracy", "fitted"), [(0.5, True), (1.0, False)])
def test_the_head_that_promises_more_behind_the_map_is_served(accuracy: float, fitted: bool) -> None:
    trained = replace(profile().trained, accuracies=np.full(len(profile().aurocs), accuracy))
    assert head_behind(CHANNEL, OWN.head, replace(profile(), trained=trained)).fitted is fitted


def test_a_trained_head_is_not_judged_on_rows_that_it_has_seen() -> None:
    """Twelve rows a class in 60 dimensions: the trained head knows each by heart. Without folds it looked perfect."""
    random = np.random.default_rng(3)
    labels = ["a", "b"] * 20
    rows = random.normal(size=(40, 60)) + np.where(np.arange(40) % 2, 0.3, -0.3)[:, None] * np.eye(60)[0] * 3

    def learns(some: Matrix, named: Sequence[str]) -> LinearHead:
        return train_head(some, named, penalties=[1e-6]).head

    memorising = learns(rows, labels)
    assert np.mean(np.array(memorising.labels)[memorising.logits(rows).argmax(1)] == labels) == 1.0
    measured = measure_task(rows, labels, memorising, learns)
    assert measured.trained.accuracies.max() < 0.95
    assert head_behind(MappedChannel.blur(rows.mean(0), np.cov(rows.T), 1.0), memorising, measured).fitted


def test_outliers_of_the_tasks_own_kind_give_no_thresholds() -> None:
    own_kind = measure_task(ROWS, LABELS, OWN.head, lambda *_: OWN.head, outliers=PLANTED.rows(400, 9)[0], directions=3)
    assert own_kind.aurocs.max() < 0.7
    served = head_behind(CHANNEL, OWN.head, own_kind)
    assert dict(served.ood) == {}
    assert served.accuracy is not None


def test_where_nothing_is_known_of_the_map_the_trained_head_promises_nothing() -> None:
    alone = CalibratedHead.unmapped(OWN)
    assert (alone.accuracy, alone.margin, alone.fitted) == (None, None, False)
    assert alone.head.head is OWN.head
    assert dict(alone.ood) == dict(OWN.ood)


def test_answers_are_the_same_every_time() -> None:
    one, other = (head_behind(CHANNEL, OWN.head, profile(), directions=3) for _ in range(2))
    assert dict(one.ood) == dict(other.ood)
    assert (one.accuracy, one.precision) == (other.accuracy, other.precision)
    np.testing.assert_array_equal(one.head.weight, other.head.weight)


def test_refusals() -> None:
    with pytest.raises(InvalidInputError, match="has 1 rows; give at least two"):
        measure_task(ROWS[:3], ["a", "b", "a"], LinearHead(np.eye(6)[:, :2], np.zeros(2), ("a", "b")), trains)
    with pytest.raises(InvalidInputError, match="too few to judge by"):
        measure_task(ROWS, LABELS, OWN.head, lambda *_: OWN.head, outliers=ROWS[:19])


def test_a_profile_is_saved_whole(tmp_path: Path) -> None:
    path = tmp_path / "profile.safetensors"
    profile().save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = TaskProfile.load(path)
    assert loaded.digest == profile().digest
    one, other = (head_behind(CHANNEL, OWN.head, some, directions=3) for some in (profile(), loaded))
    assert dict(one.ood) == dict(other.ood)
    arrays, metadata = load_arrays(path)
    del arrays["fitted.accuracies"]
    save_arrays(path, arrays, metadata)
    with pytest.raises(InvalidInputError, match="is damaged"):
        TaskProfile.load(path)
    save_arrays(path, arrays, {})
    with pytest.raises(InvalidInputError, match="not a task's profile"):
        TaskProfile.load(path)
