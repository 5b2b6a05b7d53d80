"""Offline work with the silo's own encoder: embed public texts, train heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders import Encoder, EncoderSettings, load_encoder
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.heads import TrainedHead, calibrate, import_head, train_head
from sealign.protocol import PublicSetCard
from sealign_server.few_shot import drawn_texts
from sealign_server.store import CalibrationRows, PublicEmbeddings, SiloDocument, SiloStore, TaskDocument

Progress = Callable[[int], None]

# Enough for a 5 % quantile; few enough to calibrate every map when a silo starts.
CALIBRATION_ROWS = 2000


def create_silo(directory: Path, name: str, encoder: EncoderSettings) -> SiloStore:
    """A new silo whose heads will be trained on ``encoder``.

    Raises:
        InvalidInputError: there is a silo already, or the encoder cannot be loaded.
    """
    card = load_encoder(encoder).card
    return SiloStore.create(directory, SiloDocument(name=name, encoder=encoder, encoder_card=card))


def add_public_set(store: SiloStore, name: str, texts: PublicSet, progress: Progress) -> PublicSetCard:
    """Embed a public set and keep the embeddings, for clients to align over."""
    rows = _encoder(store).encode(texts.texts, progress=progress)
    card = PublicSetCard(texts.digest, len(texts), name)
    store.save_public_set(PublicEmbeddings(card, rows), texts)
    return card


def read_labelled(path: Path) -> tuple[list[str], list[str]]:
    """Labels and texts of a UTF-8 TSV file with the header ``label<TAB>text``.

    Raises:
        NotFoundError, StorageError: the file is missing or cannot be read.
        InvalidInputError: a line without two columns, named by its number.
    """
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8; convert it") from error
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    if rows[0] != ["label", "text"]:
        raise InvalidInputError(f"{path}: line 1 must be the header label<TAB>text")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not all(cell.strip() for cell in row):
            raise InvalidInputError(f"{path}: line {number} must be a label, a tab and a text")
    return [label for label, _ in rows[1:]], [text for _, text in rows[1:]]


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
    rows = _encoder(store).encode(texts, progress=progress)
    released = drawn_texts(rows, texts, release, seed)
    head = train_head(rows, labels, seed=seed)
    calibration = calibration_rows(rows, labels, seed)
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
        InvalidInputError: the head does not fit the data's labels or the silo's encoder, or there are fewer texts than
            are to be released.
    """
    linear = import_head(head, labels=None)
    dimension = store.document.encoder_card.dimension
    if linear.dimension != dimension:
        raise InvalidInputError(f"{head} takes {linear.dimension} dimensions, the silo's encoder gives {dimension}")
    rows = _encoder(store).encode(texts, progress=progress)
    released = drawn_texts(rows, texts, release, seed)
    calibrated = calibrate(linear, rows, labels)
    calibration = calibration_rows(rows, labels, seed)
    store.save_task(task, TaskDocument(description=description), calibrated, calibration, released)
    return calibrated


def calibration_rows(embeddings: NDArray[np.float32], labels: Sequence[str], seed: int = 0) -> CalibrationRows:
    """At most 2,000 of the labelled embeddings, drawn uniformly."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(labels))[:CALIBRATION_ROWS])
    return CalibrationRows(embeddings[chosen], tuple(labels[row] for row in chosen))


def _encoder(store: SiloStore) -> Encoder:
    encoder = load_encoder(store.document.encoder)
    if encoder.card.fingerprint != store.document.encoder_card.fingerprint:
        raise InvalidInputError(
            "the silo's encoder has changed since the silo was created (other weights, tokenizer or pooling): "
            "restore it, or create a new silo"
        )
    return encoder
