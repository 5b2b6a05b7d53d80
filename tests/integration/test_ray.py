"""Bulk classification on a Ray cluster of this machine, whose workers and drivers are killed under load."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from sealign_client import Client
from tests.support.fakesilo import FakeSilo, clear_labels, serving_fake, silo_files
from tests.support.processes import environment, script
from tests.support.views import PUBLIC, client_encoder, installed_views

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray (extra `ray`)")

ROWS, BLOCK = 1500, 100
RAY = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
WORKERS = 2
TEXTS = [f"query {number}" for number in range(ROWS)]


@dataclass
class Gate:
    """Lets so many requests for classification through, and the rest when it is opened."""

    free: int = 0
    opened: Event = field(default_factory=Event)
    waiting: int = 0

    def __call__(self, method: str, reply: Any) -> Any:
        if method in ("Classify", "ClassifyStream"):
            self.free -= 1
            if self.free < 0:
                self.waiting += 1
                assert self.opened.wait(300)
        return reply


@dataclass
class Cluster:
    """A cluster on this machine, a silo, and an aligned client of it."""

    process: psutil.Process
    fake: FakeSilo
    variables: dict[str, str]
    client: Client

    def workers(self) -> list[psutil.Process]:
        """Processes that hold a model."""
        found = []
        for each in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it ends, or has
                found += [each] if "_Worker" in " ".join(each.cmdline()) else []
        return found

    def classify(self, file: Path, output: Path, *options: object) -> subprocess.Popen[str]:
        """Start the command."""
        given = (*("--ray", "--file", file, "--output", output, "--block-rows", BLOCK, "--workers", WORKERS), *options)
        return subprocess.Popen(
            [script("sealign"), "classify", *map(str, given)], stderr=subprocess.PIPE, text=True, env=self.variables
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    scratch = tmp_path_factory.mktemp("ray")
    session = tempfile.mkdtemp(prefix="ray-")  # paths of sockets must be short
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fake = FakeSilo()
    with serving_fake(fake, *silo_files(scratch)) as address:
        fields = address.settings(map_directory=scratch / "maps")
        (scratch / "views").mkdir()
        given = {f"SEALIGN_CLIENT_{name.upper()}": str(value) for name, value in fields.items()}
        variables = environment(
            PYTHONPATH=installed_views(scratch / "views"),
            RAY_ADDRESS=f"127.0.0.1:{port}",
            **RAY,
            SEALIGN_CLIENT_ENCODER="views:",
            **given,
        )
        start = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            "--include-dashboard=false",
            "--num-cpus",
            WORKERS,
        ]
        start += ["--object-store-memory", 100 << 20, "--temp-dir", session, "--port", port]
        start += ["--node-ip-address", "127.0.0.1", "--disable-usage-stats"]
        with (scratch / "log").open("wb") as log:
            head = subprocess.Popen([*map(str, start)], stdout=log, stderr=log, env=variables)
        try:
            with Client(**fields, encoder=client_encoder()) as client:
                client.align(PUBLIC)
                until(lambda: "Ray runtime started" in (scratch / "log").read_text())
                yield Cluster(psutil.Process(head.pid), fake, variables, client)
        finally:
            for each in [*psutil.Process(head.pid).children(recursive=True), head]:
                with suppress(psutil.NoSuchProcess):  # asked to end, Ray takes its time
                    each.kill()
            head.wait(60)
            shutil.rmtree(session, ignore_errors=True)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def parts(output: Path) -> dict[str, int]:
    """Names of finished parts, and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}


def test_a_killed_worker_and_a_killed_driver_lose_and_repeat_no_row(cluster: Cluster, tmp_path: Path) -> None:
    from pyarrow import dataset

    file, output = tmp_path / "in.csv", tmp_path / "out"
    file.write_text("id,text\n" + "".join(f"r{number},{text}\n" for number, text in enumerate(TEXTS)))
    cluster.fake.tamper = gate = Gate(free=8)
    first = cluster.classify(file, output, "--id", "id")
    until(lambda: first.poll() is not None or (bool(parts(output)) and gate.waiting >= 1))
    assert first.poll() is None, first.communicate()[1]
    first.kill()
    first.communicate()
    until(lambda: not cluster.workers())
    earlier = parts(output)
    gate.opened.set()

    cluster.fake.tamper = gate = Gate(free=2)
    second = cluster.classify(file, output, "--id", "id")
    until(lambda: second.poll() is not None or gate.waiting >= WORKERS)  # both are within a block
    victim = cluster.workers()[0]
    os.kill(victim.pid, signal.SIGKILL)
    gate.opened.set()
    _, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    found = dataset.dataset(output, format="parquet").to_table().to_pylist()
    assert sorted(row["row"] for row in found) == sorted(f"r{number}" for number in range(ROWS))
    labels, certain = clear_labels(cluster.fake, cluster.client, TEXTS)
    answered = {row["row"]: row["label"] for row in found}
    assert all(answered[f"r{n}"] == labels[n] for n in range(ROWS) if certain[n])
    assert earlier.items() <= parts(output).items()  # what was done was not done again
    assert len(parts(output)) == ROWS // BLOCK
    assert {path.name[0] for path in output.iterdir()} == {"p", "_"}
    refused = cluster.classify(file, output, "--id", "id")
    _, errors = refused.communicate(timeout=60)
    assert (refused.returncode, "is complete" in errors) == (2, True), errors


DATASET = """
import json, sys
from pathlib import Path
import ray
from sealign.errors import NotFoundError
from sealign_client import client_settings
from sealign_client.blocks import Job
from sealign_client.ray import classify, classify_files, connected
from sealign_client.records import Columns, Format

texts = Path(sys.argv[1])
with connected(None):
    items = [{"id": number, "text": text} for number, text in enumerate(texts.read_text().splitlines())]
    answered = classify(ray.data.from_items(items), client_settings(), batch_rows=64).take_all()
    rows = [(row["id"], row["text"], row["label"]) for row in answered]
    job = Job((texts,), Format.LINES, Columns(), texts.with_name("out"), task="nothing")
    job.begin({})
    try:
        classify_files(job, client_settings(), workers=1)
    except NotFoundError as error:
        Path(sys.argv[2]).write_text(json.dumps([sorted(rows), str(error)]))
"""


def test_a_dataset_gets_columns_and_errors_are_the_silos(cluster: Cluster, tmp_path: Path) -> None:
    cluster.fake.tamper = lambda _, reply: reply
    texts = TEXTS[:200]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    program = [sys.executable, "-c", DATASET, *(str(tmp_path / name) for name in ("texts.txt", "found.json"))]
    ran = subprocess.run(program, capture_output=True, text=True, env=cluster.variables, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    answered, error = json.loads((tmp_path / "found.json").read_text())
    labels, certain = clear_labels(cluster.fake, cluster.client, texts)
    assert [(number, text) for number, text, _ in answered] == list(enumerate(texts))
    assert all(label == labels[number] for number, _, label in answered if certain[number])
    assert "nothing" in error


def test_embeddings_are_classified_as_their_texts_are(cluster: Cluster, tmp_path: Path) -> None:
    from pyarrow import dataset

    cluster.fake.tamper = lambda _, reply: reply
    np.save(tmp_path / "in.npy", client_encoder().encode(TEXTS[:300]))
    run = cluster.classify(tmp_path / "in.npy", tmp_path / "out")
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    found = {
        row["row"]: row["label"] for row in dataset.dataset(tmp_path / "out", format="parquet").to_table().to_pylist()
    }
    labels, certain = clear_labels(cluster.fake, cluster.client, TEXTS[:300])
    assert len(found) == 300
    assert all(found[str(n + 1)] == labels[n] for n in range(300) if certain[n])
