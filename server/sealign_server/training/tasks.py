"""Heads: trained on labelled texts, or imported, with a profile from which others are fitted to maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import shared_names
from sealign.defaults import FEWEST_OUTLIERS, MAX_EXAMPLES, OOD_DIRECTIONS, OUTLIERS
from sealign.errors import InvalidInputError
from sealign.heads import (
    DEFAULT_PENALTIES,
    MEASURING_STEPS,
    LinearHead,
    TaskProfile,
    TrainedHead,
    calibrate,
    class_indices,
    import_head,
    measure_task,
    require_fitting,
    retrain_head,
    train_head,
)
from sealign.shipped import outlier_texts
from sealign_server.store import SharedExamples, SiloStore, StoredTask
from sealign_server.store.files import checked_name
from sealign_server.training.embedding import Progress, embedded

Steps: TypeAlias = Callable[[str, int], AbstractContextManager[Progress]]
"""Shows a stage of so many steps; entered, it gives the function that is told of each."""

_FEWEST = 2
_NAMED = 5


def silent(what: str, count: int) -> AbstractContextManager[Progress]:
    """Show nothing of a stage."""
    del what, count
    return nullcontext(lambda _: None)


@dataclass(frozen=True)
class TrainingData:
    """Labelled texts of a task.

    Attributes:
        labels: one per text.
        texts: to embed and train on.
        seed: random seed for what is drawn: held-out rows, shared examples.
        share: how many texts, without labels, a silo with ``--share-examples`` gives to clients.
        outliers: general texts that are not of the task; None for those that ship with Sealign.
    """

    labels: Sequence[str]
    texts: Sequence[str]
    seed: int = 0
    share: int = 0
    outliers: Sequence[str] | None = None


def train_task(
    store: SiloStore,
    task: str,
    description: str | None,
    data: TrainingData,
    progress: Progress,
    steps: Steps = silent,
) -> TrainedHead:
    """Train a head on labelled texts and keep it as a task, with a profile from which heads are fitted to maps.

    What can be refused is refused before anything is embedded.

    Args:
        store: the silo.
        task: its name.
        description: for people; None keeps that of an earlier version.
        data: to train on.
        progress: told how many texts were embedded.
        steps: shows the stages that follow.

    Raises:
        InvalidInputError: bad data, a class with too few texts, or fewer texts than are to be shared.
    """
    _check(task, data)
    counts = Counter(data.labels)
    if len(counts) < 2:
        raise InvalidInputError(f"a task needs at least two classes, the data have {len(counts)}")
    rare = rare_classes(tuple(counts), data.labels)
    if rare:
        raise InvalidInputError(
            f"{len(rare)} of {len(counts)} classes have one row only: {rare_named(rare)}. Give at least {_FEWEST} rows "
            "of each class, or leave these out."
        )
    rows = embedded(store, data.texts, progress)
    with steps("training", len(DEFAULT_PENALTIES) + 1) as step:
        head = train_head(rows, data.labels, seed=data.seed, progress=step)
    store.tasks.save(task, _made(store, data, description, rows, head, (progress, steps)))
    return head


def import_task(
    store: SiloStore,
    task: str,
    description: str | None,
    head: Path,
    data: TrainingData,
    progress: Progress,
    steps: Steps = silent,
) -> TrainedHead:
    """Keep a head trained elsewhere as a task, calibrated on labelled texts it has not seen.

    Arguments are those of :func:`train_task`, and the head's file.

    Raises:
        InvalidInputError: the head does not fit the data's labels or the silo's encoder, or there are fewer texts than
            are to be shared.
    """
    _check(task, data)
    linear = import_head(head, labels=None)
    dimension = store.document.encoder_card.dimension
    if linear.dimension != dimension:
        raise InvalidInputError(f"{head} takes {linear.dimension} dimensions, the silo's encoder gives {dimension}")
    class_indices(data.labels, linear.labels, len(data.texts))
    rows = embedded(store, data.texts, progress)
    require_fitting(linear, rows, data.labels, seed=data.seed)
    calibrated = calibrate(linear, rows, data.labels)
    store.tasks.save(task, _made(store, data, description, rows, calibrated, (progress, steps)))
    return calibrated


def rare_classes(classes: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that fewer than two of the labels name: no head is fitted to a map for a task with one."""
    counts = Counter(labels)
    return tuple(label for label in classes if counts[label] < _FEWEST)


def rare_named(rare: Sequence[str]) -> str:
    """Return the first five of some classes, as an error or a warning names them."""
    return ", ".join(map(repr, rare[:_NAMED])) + (", ..." if len(rare) > _NAMED else "")


def outlier_rows(store: SiloStore, data: TrainingData) -> NDArray[np.float32]:
    """Return embeddings of texts of another kind than a task's, at most 4,000: given, or those that ship with Sealign.

    Public texts are not used: of the task's own kind, they would make it an outlier of itself.
    """
    return embedded(store, (data.outliers or outlier_texts())[:OUTLIERS], lambda _: None)


def profiled(
    rows: NDArray[np.float32],
    data: TrainingData,
    head: TrainedHead,
    outliers: NDArray[np.float32] | None,
    steps: Steps = silent,
) -> TaskProfile | None:
    """Measure a task once, so that no map ever meets its rows; None if a class has fewer than two rows."""
    own = head.head
    if rare_classes(own.labels, data.labels):
        return None

    def train(part: NDArray[np.float64], labels: Sequence[str]) -> LinearHead:
        if head.penalty is None:
            return own
        return retrain_head(part, labels, classes=own.labels, penalty=head.penalty, seed=data.seed)

    directions = min(OOD_DIRECTIONS, own.dimension)
    with steps("measuring", MEASURING_STEPS) as step:
        return measure_task(
            rows, data.labels, own, train, outliers=outliers, directions=directions, seed=data.seed, progress=step
        )


def drawn_examples(
    embeddings: NDArray[np.float32], texts: Sequence[str], count: int, seed: int = 0
) -> SharedExamples | None:
    """Return ``count`` distinct texts drawn uniformly, with their embeddings, rows of shape (n, d); None for no texts.

    Raises:
        InvalidInputError: there are not so many distinct texts.
    """
    if not count:
        return None
    first = list({text: row for row, text in reversed(list(enumerate(texts)))}.values())
    _require_distinct(count, len(first))
    chosen = np.sort(np.random.default_rng(seed).choice(first, count, replace=False))
    return SharedExamples(tuple(texts[row] for row in chosen), embeddings[chosen])


def _check(task: str, data: TrainingData) -> None:
    """Refuse what needs no embedding to be refused."""
    checked_name(task)
    if not data.texts or len(data.labels) != len(data.texts):
        raise InvalidInputError(f"a task needs texts with one label each, not {len(data.texts)} and {len(data.labels)}")
    if data.outliers is not None and len(data.outliers) < FEWEST_OUTLIERS:
        raise InvalidInputError(f"{len(data.outliers)} outlier texts are too few; give at least {FEWEST_OUTLIERS}")
    if data.share > MAX_EXAMPLES:
        raise InvalidInputError(f"{data.share} texts cannot be shared: clients accept at most {MAX_EXAMPLES}")
    if data.share:
        _require_distinct(data.share, len(set(data.texts)))


def _require_distinct(count: int, distinct: int) -> None:
    if not 0 < count <= distinct:
        raise InvalidInputError(f"{count} texts cannot be shared of {distinct} distinct ones; choose fewer")


def _made(
    store: SiloStore,
    data: TrainingData,
    description: str | None,
    rows: NDArray[np.float32],
    head: TrainedHead,
    told: tuple[Progress, Steps],
) -> StoredTask:
    progress, steps = told
    profile = profiled(rows, data, head, outlier_rows(store, data), steps)
    examples = drawn_examples(rows, data.texts, data.share, data.seed)
    return StoredTask(head, description, profile, examples, _named(store, head.head.labels, progress))


def _named(store: SiloStore, labels: Sequence[str], progress: Progress) -> SharedExamples | None:
    """Return the names of labels as texts, as many as clients accept, spread evenly; None if none is in words."""
    names = shared_names(labels)
    return SharedExamples(names, embedded(store, names, progress)) if names else None
