"""The silo's own encoder, and embeddings of training texts that are computed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np

from sealign.alignment import PublicSet
from sealign.encoders import Embeddings, Encoder, EncoderSettings, load_encoder
from sealign.errors import InvalidInputError, StorageError
from sealign.files import load_arrays, save_arrays
from sealign.protocol import PublicSetCard
from sealign_server.store import PublicRows, SiloDocument, SiloStore
from sealign_server.store.files import by_age, delete, private_directory

Progress = Callable[[int], None]

_RETAINED = 6
"""Files of embeddings: those of the newest trainings."""


def create_silo(directory: Path, name: str, encoder: EncoderSettings) -> SiloStore:
    """Make a silo whose heads will be trained on ``encoder``.

    Raises:
        InvalidInputError: there is a silo already, or the encoder cannot be loaded.
    """
    card = load_encoder(encoder).card
    return SiloStore.create(directory, SiloDocument(name=name, encoder=encoder, encoder_card=card))


def silo_encoder(store: SiloStore) -> Encoder:
    """Load the encoder that a silo was created with.

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
    store.space.save_public_set(PublicRows(card, rows), texts)
    return card


def embedded(store: SiloStore, texts: Sequence[str], progress: Progress) -> Embeddings:
    """Embed training texts, or read what an earlier training of the same texts left.

    Raises:
        InvalidInputError: the encoder cannot be loaded or has changed, or a text cannot be embedded.
        StorageError: the embeddings could not be written.
    """
    state = sha256(store.document.encoder_card.fingerprint.encode())
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        state.update(len(content).to_bytes(8, "little") + content)
    path = store.embedded_path / f"{state.hexdigest()}.safetensors"
    with suppress(StorageError):
        rows: Embeddings = load_arrays(path)[0]["rows"]
        progress(len(texts))
        return rows
    rows = silo_encoder(store).encode(texts, progress=progress)
    private_directory(path.parent)
    save_arrays(path, {"rows": np.asarray(rows, np.float32)}, {"created": str(int(time.time()))})
    for old in by_age(list(path.parent.glob("*.safetensors")))[:-_RETAINED]:
        delete(old)
    return rows
