"""Heads that were fitted to maps are kept beside them, and fitted beside the calls that wait for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sealign.errors import NoPlanError, NotFoundError
from sealign.protocol import RowKind, TaskCard
from sealign_server.serving import Silo
from sealign_server.serving.served_tasks import LoadedTask, ServedTask
from sealign_server.settings import ServingOptions
from sealign_server.store import SiloStore
from tests.support.silo import align_plain, space_of
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo
from tests.unit.server.conftest import ALICE, BOB, served

OPTIONS = ServingOptions(batch_rows=(1,))


@pytest.fixture
def store(tmp_path: Path) -> SiloStore:
    """A silo with a task whose heads are fitted to maps."""
    return make_silo(tmp_path / "silo", calibrated=True)


@pytest.fixture
def rows(store: SiloStore) -> RowKind:
    """Rows of Alice, who has learned a map."""
    return learned(store, ALICE)


def learned(store: SiloStore, identity: str) -> RowKind:
    encoder = client_encoder()
    record = align_plain(space_of(store), identity, encoder.card, PUBLIC.digest, encoder.encode(PUBLIC.texts))
    return RowKind(encoder.card.fingerprint, record.card.id)


def kept(store: SiloStore) -> list[Path]:
    return sorted(store.directory.rglob("_heads/*/*"))


async def asked(store: SiloStore, rows: RowKind) -> tuple[TaskCard, list[str]]:
    """The card that a silo gives after a start, and what it logs."""
    with capture_logs() as logs:
        (card,) = await served(store, OPTIONS).classification.describe(ALICE, rows)
    return card, [str(event["event"]) for event in logs]


async def test_a_head_is_fitted_once_and_again_where_its_file_is_damaged(store: SiloStore, rows: RowKind) -> None:
    card, logs = await asked(store, rows)
    assert logs == ["head fitted"]
    assert await asked(store, rows) == (card, [])
    path = next(path for path in kept(store) if path.suffix == ".safetensors")
    content = path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    for damaged in (content[:-100], content[:-1] + b"?", b""):
        path.write_bytes(damaged)
        assert await asked(store, rows) == (card, ["fitted head is damaged; it is fitted again", "head fitted"])
    assert await asked(store, rows) == (card, [])


async def test_a_head_goes_with_what_it_was_made_of(store: SiloStore, rows: RowKind) -> None:
    card, _ = await asked(store, rows)
    store.tasks.save("colours", store.tasks.load("colours"))  # the same, as another version
    assert await asked(store, rows) == (card, [])
    (store.directory / "tasks" / "colours" / str(store.tasks.version("colours")) / "profile.safetensors").unlink()
    unmapped, logs = await asked(store, rows)
    assert (unmapped.calibrated, unmapped.revision != card.revision, logs) == (False, True, [])
    store.space.remove_map(ALICE, str(rows.map))
    assert kept(store) == []


async def test_a_head_goes_with_its_task(store: SiloStore, rows: RowKind) -> None:
    await asked(store, rows)
    assert len(kept(store)) == 2  # and its lock
    store.tasks.remove("colours")
    assert kept(store) == []


class Held:
    """Stands before one task's head."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.released = threading.Event()
        self.made: list[str] = []
        make = ServedTask.make

        def held(task: LoadedTask, *arguments: Any) -> ServedTask:
            if task.name == name:
                self.released.wait(60)
            self.made.append(task.name)
            return make(task, *arguments)

        monkeypatch.setattr(ServedTask, "make", held)
        monkeypatch.setattr(LoadedTask, "is_large", property(lambda task: task.name == name))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    gate = Held(monkeypatch, "huge")
    yield gate
    gate.released.set()


async def test_a_large_task_keeps_nobody_waiting_for_another(store: SiloStore, rows: RowKind, held: Held) -> None:
    store.tasks.save("huge", store.tasks.load("colours"))
    tasks = served(store, OPTIONS).classification

    async def states(identity: str, rows: RowKind, **asked: Any) -> dict[str, str]:
        cards = await tasks.describe(identity, rows, **asked)
        return {card.name: "preparing" if card.preparing else "ready" if card.plans else "none" for card in cards}

    theirs = learned(store, BOB)
    assert await states(ALICE, rows, names={"colours"}) == {"colours": "ready"}
    assert await states(ALICE, rows, seconds=0.05) == {"colours": "ready", "huge": "preparing"}
    assert await states(BOB, theirs, names={"colours"}) == {"colours": "ready"}
    assert await states(ALICE, rows, names={"huge"}, seconds=0.05) == {"huge": "preparing"}
    waiting = [asyncio.create_task(states(ALICE, rows)) for _ in range(20)]  # no piece of work each
    await asyncio.sleep(0.05)
    held.released.set()
    assert [await state for state in waiting] == [{"colours": "ready", "huge": "ready"}] * 20
    assert held.made == ["colours", "colours", "huge"]


async def test_a_task_that_is_damaged_is_no_task_that_is_not_there(store: SiloStore, rows: RowKind) -> None:
    store.tasks.save("shapes", store.tasks.load("colours"))
    version = store.directory / "tasks" / "shapes" / str(store.tasks.version("shapes"))
    (version / "head.safetensors").write_bytes(b"damage")
    silo: Silo = served(store, OPTIONS)
    with capture_logs() as logs:
        for _ in range(3):
            assert list(silo.classification.faults()) == ["shapes"]
    assert len(logs) == 1  # though it is looked at every second
    with pytest.raises(NoPlanError, match="task shapes cannot be served at present; the silo's log says why"):
        await silo.classification.catch_up(ALICE, "shapes", rows)
    with pytest.raises(NotFoundError, match="tasks are: colours, shapes"):
        silo.classification.require("weather")


async def test_a_precision_that_no_plan_reaches_is_a_fault(store: SiloStore) -> None:
    silo = served(store, ServingOptions(batch_rows=(1,), precision=1e-12))
    assert "precision" in silo.classification.faults()["colours"]
