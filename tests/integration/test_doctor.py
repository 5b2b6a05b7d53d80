"""Both doctors as real commands: all is well, or the line says what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealign_client import Client
from sealign_server.store import SiloStore
from tests.support.processes import Server, command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, installed_views, make_silo


def examined(name: str, *arguments: object, **extra: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit status, and the findings by check."""
    ran = command(name, "doctor", *arguments, "--json", **extra)
    assert ran.stdout, ran.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(ran.stdout):
        found.setdefault(row["check"], []).append(row)
    return ran.returncode, found


def faults(found: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """What is wrong, by check, with the advice."""
    return {name: f"{r['what']} {r['advice']}" for name, rows in found.items() for r in rows if r["level"] == "error"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_silo(tmp_path / "silo").directory


@pytest.fixture
def silo(directory: Path, tls: Tls, tmp_path: Path) -> Iterator[Server]:
    with serving("sealign-server", "serve", directory, *tls.serve_options, log=tmp_path / "silo.log") as server:
        yield server


@pytest.fixture
def views(tmp_path: Path) -> str:
    (tmp_path / "views").mkdir()
    return installed_views(tmp_path / "views")


def test_a_client_before_and_after_its_alignment(silo: Server, tls: Tls, tmp_path: Path, views: str) -> None:
    options = (*tls.client_options(silo.port), "--encoder", "views:", "--map-directory", tmp_path / "maps")
    status, found = examined("sealign", *options, PYTHONPATH=views)
    assert (status, list(faults(found))) == (1, ["map"])
    assert "sealign align --public FILE" in faults(found)["map"]
    settings = tls.client_settings(silo.port, map_directory=tmp_path / "maps")
    with Client(settings, encoder=client_encoder()) as client:
        learned = client.align(PUBLIC)
    status, found = examined("sealign", *options, PYTHONPATH=views)
    assert (status, faults(found)) == (0, {})
    assert learned.id[:12] in found["map"][0]["what"]
    assert found["round trip"][0]["what"].startswith("task colours answers in")
    assert tls.client.subject in found["silo"][0]["what"]
    silo.end()
    status, found = examined("sealign", *options, PYTHONPATH=views)
    assert (status, list(faults(found))) == (1, ["silo"])
    assert "does not answer" in faults(found)["silo"]


def test_a_client_without_a_silo(tls: Tls, tmp_path: Path, views: str) -> None:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o755)
    (keys / "pn2048.key").write_text("{")
    files = ("--tls-cert", tls.silo.certificate, "--tls-key", tls.client.key, "--key-directory", keys)
    status, found = examined("sealign", "--encoder", "views:", *files, PYTHONPATH=views)
    assert (status, set(faults(found))) == (1, {"certificate", "key"})
    assert "does not belong to certificate" in faults(found)["certificate"]
    assert "silo" not in found
    assert [row["level"] for row in found["encoder"]] == ["ok"] * 5
    assert "chmod 700" in next(row for row in found["key"] if row["level"] == "warning")["advice"]
    ran = command("sealign", "doctor", SEALIGN_CLIENT_SILO="nonsense")
    assert (ran.returncode, "SEALIGN_CLIENT_SILO" in ran.stderr) == (2, True)


def test_a_silo_that_is_well(directory: Path, tls: Tls) -> None:
    status, found = examined("sealign-server", directory, *tls.serve_options)
    assert (status, faults(found)) == (0, {})
    assert found["embeddings"][-1]["what"] == "2 public sets, 0 of 0 maps can be read"
    assert "3 labels" in found["task colours"][0]["what"]


def test_what_is_wrong_with_a_silo(silo: Server, directory: Path, tls: Tls, tmp_path: Path) -> None:
    settings = tls.client_settings(silo.port, map_directory=tmp_path / "maps")
    with Client(settings, encoder=client_encoder()) as client:
        client.align(PUBLIC)
    silo.end()
    store = SiloStore(directory)
    store.tasks.save("copy", store.tasks.load("colours"))
    for path in (directory / "tasks" / "copy").rglob("head.safetensors"):
        path.write_bytes(b"damaged")
    (learned,) = (directory / "space" / "maps").rglob("*.safetensors")
    learned.write_bytes(learned.read_bytes()[:100])
    directory.chmod(0o755)
    status, found = examined("sealign-server", directory)
    assert (status, set(faults(found))) == (1, {"settings", "store", "task copy", "embeddings"})
    assert "chmod -R go-rwx" in faults(found)["store"]
    assert "tls_cert" in faults(found)["settings"]
    assert found["task colours"][0]["level"] == "ok"
    assert "0 of 1 maps" in found["embeddings"][-1]["what"]
    shutil.rmtree(directory)
    status, found = examined("sealign-server", directory, *tls.serve_options)
    assert (status, list(faults(found))) == (1, ["store"])
    assert "sealign-server init" in faults(found)["store"]


def test_lines_for_people(directory: Path, tls: Tls) -> None:
    ran = command("sealign-server", "doctor", directory, "--precision", "1e-30", *tls.serve_options)
    lines = ran.stdout.splitlines()
    assert ran.returncode == 1
    assert all(line.startswith(("ok ", "warning ", "error ")) for line in lines)
    assert [line.split()[:3] for line in lines if line.startswith("error")] == [["error", "task", "colours"]]
