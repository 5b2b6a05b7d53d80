"""A silo's life: backed up while it works, restored elsewhere, upgraded, and what is removed from it."""

from __future__ import annotations

import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest

from sealign.errors import InvalidInputError, NoMapError, NotFoundError, StalePlanError, StorageError
from sealign_client import Client
from sealign_server.store import SiloStore, upgrade
from sealign_server.store.backup import restore
from tests.support.processes import command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo

QUERIES = [f"query {number}" for number in range(8)]


@contextmanager
def silo_and_client(directory: Path, tls: Tls, maps: Path, log: str) -> Iterator[Client]:
    with (
        serving("sealign-server", "serve", directory, *tls.serve_options, log=maps.with_name(log)) as server,
        Client(tls.client_settings(server.port, map_directory=maps), encoder=client_encoder()) as client,
    ):
        yield client


def test_a_backup_of_a_silo_at_work_is_whole(tmp_path: Path, tls: Tls) -> None:
    store, maps, backup = make_silo(tmp_path / "silo"), tmp_path / "maps", tmp_path / "silo.tar"
    ended, trained, asked = threading.Event(), [0], [0]
    task = store.tasks.load("colours")

    def train() -> None:
        while not ended.wait(1.0):
            store.tasks.save("colours", task)  # each time another version, and the oldest is deleted
            trained[0] += 1

    with silo_and_client(store.directory, tls, maps, "first.log") as client:
        client.align(PUBLIC)
        expected = [result.label for result in client.classify(QUERIES)]

        def ask() -> None:
            while not ended.is_set():
                with suppress(StalePlanError):  # on a slow machine, the task changes faster than it is described
                    assert [result.label for result in client.classify(QUERIES)] == expected
                    asked[0] += len(QUERIES)

        workers = [threading.Thread(target=work) for work in (train, ask)]
        for worker in workers:
            worker.start()
        try:
            for number in range(3):
                ran = command("sealign-server", "backup", store.directory, backup.with_name(f"{number}.tar"))
                assert ran.returncode == 0, ran.stderr
        finally:
            ended.set()
            for worker in workers:
                worker.join()
        assert trained[0] > 1
        assert asked[0] > 0
    shutil.rmtree(store.directory)
    for number in range(3):
        made, restored = backup.with_name(f"{number}.tar"), tmp_path / f"restored{number}"
        assert made.stat().st_mode & 0o777 == 0o600
        ran = command("sealign-server", "restore", made, restored)
        assert ran.returncode == 0, ran.stderr
        assert {path.stat().st_mode & 0o077 for path in (restored, *restored.rglob("*"))} == {0}
        assert command("sealign-server", "audit", "verify", restored).returncode == 0
        facts = json.loads(command("sealign-server", "info", restored, "--json").stdout)
        assert sum(row["rows"] for row in facts["rows"]) >= len(QUERIES)
    with silo_and_client(tmp_path / "restored2", tls, maps, "second.log") as client:
        assert [result.label for result in client.classify(QUERIES)] == expected  # through the map that was pinned


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("../escaped",), "no name inside a silo"),
        (("/tmp/escaped",), "no name inside a silo"),
        (("silo.json",), "its end is missing"),
        (("silo.json", "backup.json"), "not those that it lists"),
        (("backup.json", "silo.json"), "does not belong there"),
    ],
)
def test_a_file_that_is_no_backup_leaves_nothing(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    made = tmp_path / "made.tar"
    with tarfile.open(made, "w") as archive:
        for name in names:
            content = json.dumps({"format": "sealign.backup/1", "files": {}}).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    with pytest.raises(InvalidInputError, match=message):
        restore(made, tmp_path / "restored")
    assert list(tmp_path.iterdir()) == [made]


def test_a_backup_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    store, made = make_silo(tmp_path / "silo"), tmp_path / "silo.tar"
    assert command("sealign-server", "backup", store.directory, made).returncode == 0
    whole = made.read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 12_000):
        made.write_bytes(whole[:kept])
        ran = command("sealign-server", "restore", made, tmp_path / "restored")
        assert ran.returncode == 2, kept
        assert "no backup of a silo, or damaged" in ran.stderr
        assert not (tmp_path / "restored").exists()
    made.write_bytes(whole)
    restore(made, tmp_path / "restored")
    with pytest.raises(InvalidInputError, match="exists already"):
        restore(made, tmp_path / "restored")
    with pytest.raises(NotFoundError, match="there is no file"):
        restore(tmp_path / "nowhere.tar", tmp_path / "again")


def test_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_silo(tmp_path / "silo").directory
    ran = command("sealign-server", "upgrade", directory)
    assert (ran.returncode, ran.stdout) == (0, "the silo has format 1: nothing to do\n")
    document = directory / "silo.json"
    later = json.loads(document.read_bytes()) | {"format_version": 2}
    document.write_text(json.dumps(later))
    ran = command("sealign-server", "upgrade", directory)
    assert (ran.returncode, "install a later version" in ran.stderr) == (2, True)
    ran = command("sealign-server", "info", directory)
    assert "sealign-server upgrade" in ran.stderr
    earlier = later | {"format_version": 0}
    document.write_text(json.dumps(earlier))
    steps: list[Path] = []
    monkeypatch.setattr(upgrade, "STEPS", {0: steps.append})
    assert upgrade.upgrade(directory) == (0, 1)
    assert steps == [directory]
    assert SiloStore(directory).document.name == "small"
    document.write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        upgrade.upgrade(directory)


def test_what_is_removed_is_shown_no_more_and_asked_no_more(tmp_path: Path, tls: Tls) -> None:
    store = make_silo(tmp_path / "silo")
    with silo_and_client(store.directory, tls, tmp_path / "maps", "silo.log") as client:
        learned = client.align(PUBLIC)
        client.classify(QUERIES)
        for name in ("views", PUBLIC.digest[:8]):
            shown = command("sealign-server", "public", "show", store.directory, name)
            assert json.loads(shown.stdout)["maps"] == [learned.id], shown.stderr
        remove(store.directory, "map", learned.id[:8])
        with pytest.raises(NoMapError):
            client.classify(QUERIES)
        client.align(PUBLIC)
        client.classify(QUERIES)
        shown = command("sealign-server", "task", "show", store.directory, "colours")
        assert json.loads(shown.stdout)["labels"] == ["blue", "green", "red"]
        remove(store.directory, "task", "colours")
        with pytest.raises(NotFoundError, match="colours"):
            client.classify(QUERIES, task="colours")
        assert command("sealign-server", "task", "show", store.directory, "colours").returncode == 2
        remove(store.directory, "public", "views")
        with pytest.raises(NotFoundError, match="it holds: few"):
            client.align(PUBLIC)


def remove(directory: Path, kind: str, name: str) -> None:
    removed = command("sealign-server", kind, "remove", directory, name)
    assert removed.returncode == 0, removed.stderr
