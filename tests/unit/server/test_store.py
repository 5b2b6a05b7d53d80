"""The silo's directory: what is kept, for whose eyes, and how damage is reported."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import PublicSet
from sealign.errors import InvalidInputError, NotFoundError, SealignError, StorageError
from sealign.protocol import PublicSetCard, RowKind
from sealign.protocol.status import sendable
from sealign_server.ledger import Ledger, Release, Releases
from sealign_server.store import OPERATOR, SharedExamples, SiloStore, StoredTask, Synthetic, remove_leftovers
from sealign_server.store.backup import back_up, restore
from tests.support.silo import align_plain, space_of
from tests.unit.server.conftest import ALICE, BOB, DIGEST, PUBLIC_ROWS, Rows, trained, unit_rows


def version_of(store: SiloStore, task: str = "colours") -> Path:
    return store.directory / "tasks" / task / (store.tasks.version(task) or "none")


def test_a_silo_is_what_was_created(store: SiloStore) -> None:
    again = SiloStore(store.directory)
    assert again.document == store.document
    assert again.tasks.names() == ["colours"]
    task = again.tasks.load("colours")
    assert task.description == "of the rainbow"
    assert np.array_equal(task.trained.head.weight, trained().head.weight)
    (card,) = again.space.public_sets()
    assert (card.digest, card.rows, card.name, card.base) == (DIGEST, PUBLIC_ROWS, "noise", None)
    assert again.space.load_public_set(DIGEST).rows.shape == (PUBLIC_ROWS, 12)


def test_creating_twice_is_refused(store: SiloStore) -> None:
    with pytest.raises(InvalidInputError, match="is a silo already"):
        SiloStore.create(store.directory, store.document)


def test_a_directory_that_is_no_silo(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="create one with: sealign-server init"):
        SiloStore(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name": "x"', b"\xff\xfe", b'{"format_version": 2}'])
def test_damaged_silo_document(store: SiloStore, content: bytes) -> None:
    (store.directory / "silo.json").write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        SiloStore(store.directory)


@pytest.mark.parametrize("name", ["", "Topics", "../escape", "a/b", ".hidden", "x" * 64, "tópics", "topics\n"])
def test_task_names_are_plain_identifiers(store: SiloStore, name: str) -> None:
    with pytest.raises(InvalidInputError, match="must be 1 to 63"):
        store.tasks.save(name, StoredTask(trained()))
    assert store.tasks.names() == ["colours"]
    assert store.tasks.version(name) is None


@pytest.mark.parametrize("file", ["head.safetensors", "task.json"])
def test_what_is_wrong_with_a_file_stays_at_this_machine(store: SiloStore, file: str) -> None:
    (version_of(store) / file).write_bytes(b"not what was written")
    with pytest.raises(StorageError) as caught:
        store.tasks.load("colours")
    sent, incident = sendable(caught.value)
    assert incident is not None
    assert str(store.directory) not in str(sent)


def test_unknown_public_set_says_what_there_is(store: SiloStore) -> None:
    for digest in ("0" * 64, "../silo", ""):
        with pytest.raises(NotFoundError, match=r"it holds: noise \(dddddddddddd…, 80 rows\)"):
            store.space.load_public_set(digest)


def test_states_of_a_public_set_resume_and_are_no_set_before_they_are_whole(store: SiloStore, tmp_path: Path) -> None:
    texts = PublicSet(("one", "two", "three"))
    card, counts = PublicSetCard(texts.digest, 6, "openings"), (1, 3, 2)
    parts = np.split(unit_rows(3, 6, 12), (1, 4))
    begun: list[int] = []

    def read(done: int) -> Iterator[Rows]:
        begun.append(done)
        yield from parts[done:2]
        if len(begun) == 1:
            raise KeyboardInterrupt
        yield parts[2]

    with pytest.raises(KeyboardInterrupt):
        store.space.save_public_states(card, texts, counts, read)
    with pytest.raises(NotFoundError):
        store.space.load_public_set(card.digest)
    store.space.save_public_states(card, texts, counts, read)
    assert begun == [0, 2]
    assert np.abs(store.space.load_public_set(card.digest).rows - unit_rows(3, 6, 12)).max() < 1e-3
    back_up(store, tmp_path / "backup", Path.touch)
    restored = restore(tmp_path / "backup", tmp_path / "restored")
    assert restored.space.load_public_set(card.digest).rows.shape == (6, 12)
    store.space.remove_public_set(card.digest)
    assert not [path for path in store.directory.rglob("*") if card.digest in path.name]


def test_only_old_leftovers_are_removed(store: SiloStore, aligned: RowKind) -> None:
    """A replica that starts must not delete what another is writing."""
    before = {path for path in store.directory.rglob("*") if path.is_file()}
    old, new = (store.directory / "space" / f".{name}.0123456789ab.tmp" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    remove_leftovers(store.directory)
    assert {path for path in store.directory.rglob("*") if path.is_file()} == before | {new}


def test_files_and_directories_are_for_their_owner(store: SiloStore, aligned: RowKind) -> None:
    """The old silo left public/*.safetensors and releases.sqlite readable by everybody."""
    ledger = Ledger(store.ledger_path)  # held, so that its files stay while they are looked at
    Releases(ledger).record(Release("embeddings", DIGEST, "c" * 64, ALICE, PUBLIC_ROWS, 9))
    seen = 0
    for path in (store.directory, *store.directory.rglob("*")):
        seen += 1
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert seen > 12


# Tasks are versions


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_retraining_that_is_cut_off_leaves_the_old_version(
    store: SiloStore, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """At whichever file the disk is full, the task is served as before."""
    old, replace, count = store.tasks.load("colours"), Path.replace, 0

    def failing(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == cut:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    try:
        store.tasks.save("colours", StoredTask(trained(seed=9), "new"))
    except StorageError:
        monkeypatch.undo()
        again = SiloStore(store.directory).tasks.load("colours")
        assert again.description == "of the rainbow"
        assert np.array_equal(again.trained.head.weight, old.trained.head.weight)
    else:
        assert store.tasks.description("colours") == "new"
        assert cut > 3


def test_the_description_stays_unless_a_new_one_is_given(store: SiloStore) -> None:
    store.tasks.save("colours", StoredTask(trained(seed=1)))
    assert store.tasks.description("colours") == "of the rainbow"
    store.tasks.save("colours", StoredTask(trained(seed=2), ""))
    assert store.tasks.description("colours") == ""


def test_few_versions_stay_on_disk(store: SiloStore) -> None:
    for seed in range(5):
        store.tasks.save("colours", StoredTask(trained(seed)))
    assert len([path for path in version_of(store).parent.iterdir() if path.is_dir()]) == 2


def test_a_removed_task_is_gone(store: SiloStore) -> None:
    store.tasks.remove("colours")
    assert store.tasks.names() == []
    assert store.tasks.version("colours") is None
    with pytest.raises(NotFoundError, match="tasks are: none"):
        store.tasks.load("colours")


# Maps belong to identities


def test_a_map_is_its_identitys_and_named_by_content(store: SiloStore, aligned: RowKind) -> None:
    assert isinstance(aligned.map, str)
    assert store.space.has_map(ALICE, aligned.map)
    assert not store.space.has_map(BOB, aligned.map)
    learned = store.space.load_map(ALICE, aligned.map)
    assert learned.id == aligned.map
    (record,) = store.space.map_records(aligned.encoder, ALICE)
    assert (record.identity, record.card.id, record.row_norm) == (ALICE, aligned.map, 1.0)
    assert store.space.map_records(aligned.encoder, BOB) == []
    assert store.space.map_records("e" * 64, ALICE) == []


def test_a_map_under_another_name_is_refused(store: SiloStore, aligned: RowKind) -> None:
    (path,) = store.directory.glob(f"space/maps/*/{aligned.map}.safetensors")
    path.rename(path.with_name("0" * 32 + ".safetensors"))
    with pytest.raises(StorageError, match="not what its name says"):
        store.space.load_map(ALICE, "0" * 32)


def test_a_damaged_map(store: SiloStore, aligned: RowKind) -> None:
    (path,) = store.directory.glob(f"space/maps/*/{aligned.map}.safetensors")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StorageError, match="cannot be used"):
        store.space.load_map(ALICE, str(aligned.map))


def test_an_identity_evicts_its_own_oldest_maps(store: SiloStore, aligned: RowKind, client_card: object) -> None:
    from sealign.encoders import EncoderCard
    from sealign_server.settings import ServingOptions

    space = space_of(store, ServingOptions(max_maps=2))
    made = []
    for seed in range(4):
        card = EncoderCard(name="x", dimension=9, fingerprint=f"{seed:064x}")
        rows: Rows = unit_rows(seed, PUBLIC_ROWS, 9)
        made.append(align_plain(space, BOB, card, DIGEST, rows).card.id)
        os.utime(next(store.directory.glob(f"space/maps/*/{made[-1]}.json")), (seed, seed))
    assert {record.card.id for record in store.space.map_records(None, BOB)} == set(made[-2:])
    assert store.space.has_map(ALICE, str(aligned.map))


def test_the_operators_maps_are_for_everybody(store: SiloStore, public_rows: Rows) -> None:
    from sealign.encoders import EncoderCard

    card = EncoderCard(name="known", dimension=9, fingerprint="e" * 64)
    space = space_of(store)
    record = align_plain(space, OPERATOR, card, DIGEST, public_rows)
    for identity in (ALICE, BOB, "anonymous"):
        assert [m.id for m in space.card(identity, card.fingerprint, 9).maps] == [record.card.id]
        assert space.mapped(identity, RowKind(card.fingerprint, record.card.id)).owner == OPERATOR


def test_machine_errors_are_never_sent(store: SiloStore) -> None:
    assert issubclass(StorageError, SealignError)
    sent, incident = sendable(StorageError(f"{store.directory} is full"))
    assert incident
    assert str(store.directory) not in str(sent)


def test_synthetic_texts_stay_when_a_task_is_trained_again_and_others_do_not(store: SiloStore) -> None:
    rows = np.ones((2, 12), np.float32)
    store.tasks.share("colours", SharedExamples(("a text", "of it"), rows))
    assert store.tasks.examples("colours") is not None
    store.tasks.save("colours", StoredTask(trained()))
    assert store.tasks.examples("colours") is None
    made = Synthetic(epsilon=3.9, delta=1e-5, rounds=3, scale=2.04, model="writer")
    store.tasks.share("colours", SharedExamples(("written", "in its place"), rows, made))
    store.tasks.save("colours", StoredTask(trained()))
    again = SiloStore(store.directory).tasks.load("colours")
    assert again.synthetic == made
    assert again.examples is not None
    assert again.examples.texts == ("written", "in its place")
    assert again.description == "of the rainbow"
    store.tasks.save("colours", StoredTask(trained(), examples=SharedExamples(("a text",), rows[:1])))
    assert store.tasks.load("colours").synthetic is None
