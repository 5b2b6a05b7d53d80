"""A small silo without a language model: random embeddings in place of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sealign.encoders import EncoderCard, EncoderSettings
from sealign.heads import TrainedHead, train_head
from sealign.protocol import PublicSetCard, RowKind
from sealign_server.ledger import Ledger
from sealign_server.serving import Silo
from sealign_server.settings import ServingOptions
from sealign_server.store import PublicRows, SiloDocument, SiloStore, StoredTask
from tests.support.silo import align_plain, space_of

Rows = NDArray[np.float32]

SILO_DIMENSION, CLIENT_DIMENSION, PUBLIC_ROWS = 12, 9, 80
DIGEST = "d" * 64
ALICE, BOB = "CN=alice", "CN=bob"


def unit_rows(seed: int, count: int, dimension: int) -> Rows:
    """Random rows of norm one."""
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def trained(seed: int = 0) -> TrainedHead:
    """A head of three classes."""
    rows = unit_rows(seed, 60, SILO_DIMENSION)
    return train_head(rows, ["red", "green", "blue"] * 20)


def served(store: SiloStore, options: ServingOptions) -> Silo:
    """The silo at work, as one process has it."""
    return Silo(store, Ledger(store.ledger_path), options)


@pytest.fixture
def client_card() -> EncoderCard:
    return EncoderCard(name="the client's", dimension=CLIENT_DIMENSION, fingerprint="c" * 64)


@pytest.fixture
def public_rows() -> Rows:
    """The client's embeddings of the public set."""
    return unit_rows(1, PUBLIC_ROWS, CLIENT_DIMENSION)


@pytest.fixture
def store(tmp_path: Path) -> SiloStore:
    """A silo with one task and one public set."""
    card = EncoderCard(name="the silo's", dimension=SILO_DIMENSION, fingerprint="5" * 64)
    document = SiloDocument(name="small", encoder=EncoderSettings(family="use"), encoder_card=card)
    store = SiloStore.create(tmp_path / "silo", document)
    store.tasks.save("colours", StoredTask(trained(), "of the rainbow"))
    rows = unit_rows(2, PUBLIC_ROWS, SILO_DIMENSION)
    store.space.save_public_set(PublicRows(PublicSetCard(DIGEST, PUBLIC_ROWS, "noise"), rows))
    return store


@pytest.fixture
def aligned(store: SiloStore, client_card: EncoderCard, public_rows: Rows) -> RowKind:
    """The rows of a client, Alice, who has learned a map."""
    record = align_plain(space_of(store), ALICE, client_card, DIGEST, public_rows)
    return RowKind(client_card.fingerprint, record.card.id)


@pytest.fixture
def options() -> ServingOptions:
    return ServingOptions(batch_rows=(1, 16))
