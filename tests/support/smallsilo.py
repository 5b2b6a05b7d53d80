"""A silo without a language model: linear views of random meanings in place of texts, so that maps are good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders import EncoderSettings
from sealign.heads import train_head
from sealign.protocol import PublicSetCard
from sealign_server.store import PublicRows, SharedExamples, SiloDocument, SiloStore, StoredTask
from sealign_server.training.tasks import TrainingData, drawn_examples, profiled
from tests.support.views import (
    CLIENT_DIMENSION,
    PUBLIC,
    SILO_DIMENSION,
    TEXTS,
    Rows,
    ViewEncoder,
    client_encoder,
    installed_views,
)

__all__ = [
    "CLIENT_DIMENSION",
    "NAMES",
    "PUBLIC",
    "SHARED",
    "SILO_DIMENSION",
    "TEXTS",
    "Rows",
    "ViewEncoder",
    "client_encoder",
    "few_texts",
    "installed_views",
    "make_silo",
]

SHARED = 32
NAMES = ("red", "green", "blue")


def make_silo(directory: Path, *, calibrated: bool = False) -> SiloStore:
    """A silo with one task, which has examples to share, and two public sets: one large enough, one too small.

    ``calibrated``: with a profile to fit heads to maps; some labels are wrong, as labels are.
    """
    encoder = ViewEncoder("the silo's", SILO_DIMENSION)
    document = SiloDocument(name="small", encoder=EncoderSettings(family="use"), encoder_card=encoder.card)
    store = SiloStore.create(directory, document)
    rows = encoder.encode(PUBLIC.texts)
    card = PublicSetCard(PUBLIC.digest, TEXTS, "views")
    store.space.save_public_set(PublicRows(card, rows), PUBLIC)
    few = few_texts()
    store.space.save_public_set(PublicRows(PublicSetCard(few.digest, len(few), "few"), rows[: len(few)]))
    texts = [f"labelled {number}" for number in range(150 if calibrated else 300)]
    labelled = encoder.encode(texts)
    labels = ["red" if row[0] > 0.1 else "green" if row[1] > 0 else "blue" for row in labelled]
    examples = drawn_examples(labelled, texts, SHARED)
    if calibrated:
        labels[::3] = np.random.default_rng(0).permutation(labels[::3]).tolist()
    head = train_head(labelled, labels)
    data = TrainingData(labels, texts)
    profile = profiled(labelled, data, head, far_rows()) if calibrated else None
    store.tasks.save("colours", StoredTask(head, "", profile, examples, SharedExamples(NAMES, encoder.encode(NAMES))))
    return store


def far_rows() -> NDArray[np.float32]:
    """Embeddings of texts of another kind, (200, SILO_DIMENSION): all on one side of the space."""
    rows = np.random.default_rng(5).normal(size=(200, SILO_DIMENSION))
    rows[:, -1] += 3.0 * np.sqrt(SILO_DIMENSION)
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def few_texts() -> PublicSet:
    """One text fewer than encrypted alignment demands."""
    return PublicSet(PUBLIC.texts[: 4 * CLIENT_DIMENSION - 1])
