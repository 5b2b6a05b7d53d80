"""Offline work with the silo's own encoder: embed public texts, train heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders import Encoder, EncoderSettings, load_encoder
from sealign.errors import InvalidInputError
from sealign.heads import (
    ClassStatistics,
    TrainedHead,
    calibrate,
    class_indices,
    import_head,
    require_fitting,
    stratified_hold_out,
    train_head,
)
from sealign.protocol import PublicSetCard
from sealign_server.few_shot import drawn_texts
from sealign_server.store import CalibrationRows, PublicEmbeddings, SiloDocument, SiloStore, TaskDocument

Progress = Callable[[int], None]

# Enough for a 5 % quantile; few enough to calibrate every map when a silo starts.
CALIBRATION_ROWS = 2000
HELD_OUT = 0.2


def create_silo(directory: Path, name: str, encoder: EncoderSettings) -> SiloStore:
    """A new silo whose heads will be trained on ``encoder``.

    Raises:
        InvalidInputError: there is a silo already, or the encoder cannot be loaded.
    """
    card = load_encoder(encoder).card
    return SiloStore.create(directory, SiloDocument(name=name, encoder=encoder, encoder_card=card))


def silo_encoder(store: SiloStore) -> Encoder:
    """The encoder that a silo was created with, loaded.

    Raises:
        InvalidInputError: it cannot be loaded, or gives other embeddings by now.
    """
    encoder = load_encoder(store.document.encoder)
    if encoder.card.fingerprint != store.document.encoder_card.fingerprint:
        raise InvalidInputError(
            "the silo's encoder has changed since the silo was created (other weights, tokenizer or pooling): "
            "restore it, or create a new silo"
        )
    return encoder


def add_public_set(store: SiloStore, name: str, texts: PublicSet, progress: Progress) -> PublicSetCard:
    """Embed a public set and keep the embeddings, for clients to align over."""
    rows = silo_encoder(store).encode(texts.texts, progress=progress)
    card = PublicSetCard(texts.digest, len(texts), name)
    store.save_public_set(PublicEmbeddings(card, rows), texts)
    return card


def train_task(
    store: SiloStore,
    task: str,
    description: str,
    labels: Sequence[str],
    texts: Sequence[str],
    progress: Progress,
    *,
    seed: int = 0,
    release: int = 0,
) -> TrainedHead:
    """Train a head on labelled texts and keep it as a task, with a sample of them to calibrate it for maps.

    Args:
        store: the silo.
        task: its name.
        description: for people.
        labels: one a text.
        texts: to embed and train on.
        progress: told how many texts were embedded.
        seed: of everything that is drawn.
        release: how many texts a silo that is told to (``--release-texts``) gives to clients, without labels.

    Raises:
        InvalidInputError: bad data, a class with too few texts, or fewer texts than are to be released.
    """
    rows = silo_encoder(store).encode(texts, progress=progress)
    released = drawn_texts(rows, texts, release, seed)
    head = train_head(rows, labels, seed=seed)
    calibration = calibration_rows(rows, labels, head.head.labels, seed)
    store.save_task(task, TaskDocument(description=description), head, calibration, released)
    return head


def import_task(
    store: SiloStore,
    task: str,
    description: str,
    head: Path,
    labels: Sequence[str],
    texts: Sequence[str],
    progress: Progress,
    *,
    seed: int = 0,
    release: int = 0,
) -> TrainedHead:
    """Keep a head trained elsewhere as a task, calibrated on labelled texts it has not seen.

    ``seed`` and ``release`` as for :func:`train_task`.

    Raises:
        InvalidInputError: the head does not fit the data's labels or the silo's encoder, is right no more often than
            chance or far less often than a head fitted here, or there are fewer texts than are to be released.
    """
    linear = import_head(head, labels=None)
    dimension = store.document.encoder_card.dimension
    if linear.dimension != dimension:
        raise InvalidInputError(f"{head} takes {linear.dimension} dimensions, the silo's encoder gives {dimension}")
    rows = silo_encoder(store).encode(texts, progress=progress)
    released = drawn_texts(rows, texts, release, seed)
    require_fitting(linear, rows, labels, seed=seed)
    calibrated = calibrate(linear, rows, labels)
    calibration = calibration_rows(rows, labels, linear.labels, seed)
    store.save_task(task, TaskDocument(description=description), calibrated, calibration, released)
    return calibrated


def calibration_rows(
    embeddings: NDArray[np.float32], labels: Sequence[str], classes: Sequence[str], seed: int = 0
) -> CalibrationRows:
    """Of each class a fifth of the labelled embeddings, at most 2,000 in all, and the statistics of the others.

    Where a class has fewer than two, at most 2,000 of all, and no statistics.
    """
    targets = class_indices(labels, classes, len(embeddings))
    random = np.random.default_rng(seed)
    if np.bincount(targets, minlength=len(classes)).min() < 2:
        chosen = np.sort(random.permutation(len(labels))[:CALIBRATION_ROWS])
        return CalibrationRows(embeddings[chosen], tuple(labels[row] for row in chosen))
    held = stratified_hold_out(targets, classes, HELD_OUT, seed)
    rows = np.sort(random.permutation(np.flatnonzero(held))[:CALIBRATION_ROWS])
    kept = frozenset(rows.tolist())
    others = [row for row in range(len(labels)) if row not in kept]
    statistics = ClassStatistics.of(embeddings[others], [labels[row] for row in others], classes)
    return CalibrationRows(embeddings[rows], tuple(labels[row] for row in rows), statistics)
