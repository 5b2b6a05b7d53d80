"""The silo's directory: what is kept, and how damage is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign_server.store import SiloStore, TaskDocument
from tests.unit.server.conftest import DIGEST, PUBLIC_ROWS, trained


def test_a_silo_is_what_was_created(store: SiloStore) -> None:
    again = SiloStore(store.directory)
    assert again.document == store.document
    assert again.task_names() == ["colours"]
    document, head = again.load_task("colours")
    assert document.description == "of the rainbow"
    assert np.array_equal(head.head.weight, trained().head.weight)
    (card,) = again.public_sets()
    assert (card.digest, card.rows, card.name) == (DIGEST, PUBLIC_ROWS, "noise")
    assert again.load_public_set(DIGEST).rows.shape == (PUBLIC_ROWS, 12)


def test_creating_twice_is_refused(store: SiloStore) -> None:
    with pytest.raises(InvalidInputError, match="is a silo already"):
        SiloStore.create(store.directory, store.document)


def test_a_directory_that_is_no_silo(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="create one with: sealign-server init"):
        SiloStore(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name": "x"', b"\xff\xfe"])
def test_damaged_silo_document(store: SiloStore, content: bytes) -> None:
    (store.directory / "silo.json").write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        SiloStore(store.directory)


@pytest.mark.parametrize("name", ["", "Topics", "../escape", "a/b", ".hidden", "x" * 64, "tópics", "topics\n"])
def test_task_names_are_plain_identifiers(store: SiloStore, name: str) -> None:
    with pytest.raises(InvalidInputError, match="must be 1 to 63"):
        store.save_task(name, TaskDocument(), trained())
    assert store.task_names() == ["colours"]


@pytest.mark.parametrize("file", ["head.safetensors", "task.json"])
def test_damaged_task(store: SiloStore, file: str) -> None:
    (store.directory / "tasks" / "colours" / file).write_bytes(b"not what was written")
    with pytest.raises(StorageError):
        store.load_task("colours")


def test_unknown_public_set_says_what_there_is(store: SiloStore) -> None:
    for digest in ("0" * 64, "../silo", ""):
        with pytest.raises(NotFoundError, match=r"it holds: noise \(dddddddddddd…, 80 rows\)"):
            store.load_public_set(digest)


def test_leftovers_are_removed_and_nothing_else(aligned: SiloStore) -> None:
    before = {path for path in aligned.directory.rglob("*") if path.is_file()}
    for place in ("maps", "tasks/colours", "."):
        (aligned.directory / place / ".file.safetensors.0123456789ab.tmp").write_bytes(b"half")
    aligned.remove_leftovers()
    assert {path for path in aligned.directory.rglob("*") if path.is_file()} == before


def test_a_map_is_for_one_pair_of_encoders(aligned: SiloStore, client_card: EncoderCard) -> None:
    assert aligned.map_fingerprints() == [client_card.fingerprint]
    path = aligned.map_path(client_card.fingerprint)
    path.rename(aligned.map_path("e" * 64))
    with pytest.raises(InvalidInputError, match="learned between other encoders; align again"):
        aligned.load_map("e" * 64)


def test_damaged_map(aligned: SiloStore, client_card: EncoderCard) -> None:
    path = aligned.map_path(client_card.fingerprint)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StorageError, match="could not read"):
        aligned.load_map(client_card.fingerprint)
