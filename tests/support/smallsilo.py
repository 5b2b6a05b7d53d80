"""A silo without a language model: linear views of random meanings in place of texts, so that maps are good."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.encoders.settings import ENTRY_POINT_GROUP
from sealign.heads import train_head
from sealign.protocol import PublicSetCard
from sealign_server.store import PublicRows, SiloDocument, SiloStore, StoredTask
from sealign_server.training.tasks import calibration_rows, drawn_examples

Rows = NDArray[np.float32]

CLIENT_DIMENSION, SILO_DIMENSION, TEXTS, SHARED = 24, 16, 2000, 32
PUBLIC = PublicSet(tuple(f"public text {number}" for number in range(TEXTS)))


def _seed(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little")


class ViewEncoder:
    """Embeds a text as a noisy linear view of its meaning, which its characters decide."""

    def __init__(self, name: str, dimension: int) -> None:
        self.card = EncoderCard(name=name, dimension=dimension, fingerprint=sha256(name.encode()).hexdigest())
        self._view = np.random.default_rng(_seed(name)).normal(size=(12, dimension))

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Rows:
        rows = np.empty((len(texts), self.card.dimension))
        for number, text in enumerate(texts):
            meaning = np.random.default_rng(_seed(text)).normal(size=12) + 0.3
            noise = np.random.default_rng(_seed(self.card.name + text)).normal(size=self.card.dimension)
            rows[number] = meaning @ self._view + 0.5 * noise
        if progress is not None:
            progress(len(texts))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def client_encoder() -> ViewEncoder:
    return ViewEncoder("the client's", CLIENT_DIMENSION)


def loaded_client_encoder(settings: EncoderSettings) -> ViewEncoder:
    """For the entry point that :func:`installed_views` writes."""
    return client_encoder()


def installed_views(directory: Path) -> str:
    """PYTHONPATH of processes in which the client's encoder is an installed family, ``views``."""
    package = directory / "views-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: views\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\nviews = {__name__}:{loaded_client_encoder.__name__}\n"
    )
    path = (str(directory), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", ""))
    return os.pathsep.join(filter(None, path))


def make_silo(directory: Path, *, calibrated: bool = False) -> SiloStore:
    """A silo with one task, which has examples to share, and two public sets: one large enough, one too small.

    ``calibrated``: with rows and statistics to fit heads to maps; some labels are wrong, as labels are.
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
    calibration = calibration_rows(labelled, labels, head.head.labels) if calibrated else None
    store.tasks.save("colours", StoredTask(head, "", calibration, examples))
    return store


def few_texts() -> PublicSet:
    """One text fewer than encrypted alignment demands."""
    return PublicSet(PUBLIC.texts[: 4 * CLIENT_DIMENSION - 1])
