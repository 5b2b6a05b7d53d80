"""Health and readiness, task by task: a silo whose tasks are damaged, mended, removed, or beyond every plan."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealign.errors import NoPlanError
from sealign_client import Client
from sealign_server.store import SiloStore
from tests.support.processes import Server, command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, installed_views, make_silo
from tests.support.wire import raw_channel

PROBE = Path(__file__).parents[2] / "deploy" / "images" / "probe-silo"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
COLOURS, SHAPES = "sealign.v1.Classification/colours", "sealign.v1.Classification/shapes"
READY = "sealign.v1.Silo"


@pytest.fixture
def store(tmp_path: Path) -> SiloStore:
    store = make_silo(tmp_path / "silo")
    store.tasks.save("shapes", store.tasks.load("colours"))
    return store


def head(store: SiloStore, task: str) -> Path:
    return store.directory / "tasks" / task / str(store.tasks.version(task)) / "head.safetensors"


class Asked:
    """A silo that is asked for its health in every way that there is."""

    def __init__(self, silo: Server, tls: Tls) -> None:
        self.silo, self.tls = silo, tls
        self.files = {
            "SEALIGN_HEALTH_TLS_CA": str(tls.authority.certificate),
            "SEALIGN_HEALTH_TLS_CERT": str(tls.client.certificate),
            "SEALIGN_HEALTH_TLS_KEY": str(tls.client.key),
            "SEALIGN_HEALTH_ADDRESS": f"localhost:{silo.port}",
        }

    def state(self, service: str) -> int:
        with raw_channel(self.silo.address, self.tls.authority, self.tls.client) as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status)

    def probe(self, *asked: str) -> tuple[int, str]:
        ran = subprocess.run(
            [PROBE, *asked], env=os.environ | self.files, capture_output=True, text=True, check=False, timeout=60
        )
        return ran.returncode, ran.stderr

    def command(self, *options: str) -> int:
        return command("sealign-server", "health", *options, **self.files).returncode


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the images' probe asks with openssl")
def test_each_task_has_a_health_of_its_own(store: SiloStore, tls: Tls, tmp_path: Path) -> None:
    head(store, "shapes").write_bytes(b"damaged")
    with serving("sealign-server", "serve", store.directory, *tls.serve_options, log=tmp_path / "silo.log") as silo:
        asked = Asked(silo, tls)
        found = {name: asked.state(name) for name in ("", READY, "sealign.v1.Classification", COLOURS, SHAPES)}
        assert found == dict.fromkeys(found, SERVING) | {SHAPES: NOT_SERVING}
        assert (asked.probe()[0], asked.command(), asked.command("--task", "colours")) == (0, 0, 0)
        assert (asked.command("--task", "shapes"), asked.command("--task", "weather")) == (75, 2)
        (event,) = silo.events("task cannot be served")
        assert (event["task"], "head.safetensors" in event["reason"]) == ("shapes", True)
        settings = tls.client_settings(silo.port, map_directory=tmp_path / "maps")
        with Client(settings, encoder=client_encoder()) as client:
            client.align(PUBLIC)
            assert client.silo().faulty_tasks == ("shapes",)
            with pytest.raises(NoPlanError, match="serve task 'shapes' to nobody at present"):
                client.classify("query", task="shapes")
            store.tasks.save("shapes", store.tasks.load("colours"))
            wait_until(lambda: asked.state(SHAPES) == SERVING)
            assert client.classify(["query"], task="shapes")
        # Watch is told of every change.
        with raw_channel(silo.address, tls.authority, tls.client) as channel:
            watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=READY))
            assert next(watched).status == SERVING
            for task in ("colours", "shapes"):
                store.tasks.remove(task)
            assert next(watched).status == NOT_SERVING
            watched.cancel()
        assert asked.state(COLOURS) == UNKNOWN
        assert asked.probe("live") == (0, "")
        assert asked.probe() == (1, "The silo runs and serves no task, or is starting or stopping.\n")
        assert (asked.command("--live"), asked.command()) == (0, 75)


def test_a_precision_that_no_plan_reaches_is_said_to_everybody(store: SiloStore, tls: Tls, tmp_path: Path) -> None:
    settings_file, views = store.directory / "silo.toml", tmp_path / "views"
    views.mkdir()
    maps = ("--map-directory", tmp_path / "maps")
    with (
        serving("sealign-server", "serve", store.directory, *tls.serve_options, log=tmp_path / "first.log") as silo,
        closing(Client(tls.client_settings(silo.port, map_directory=tmp_path / "maps"), encoder=client_encoder())) as c,
    ):
        c.align(PUBLIC)
    settings_file.write_text("precision = 1e-12\n")
    with serving("sealign-server", "serve", store.directory, *tls.serve_options, log=tmp_path / "log") as silo:
        asked = Asked(silo, tls)
        assert [asked.state(name) for name in ("", READY, COLOURS)] == [SERVING, NOT_SERVING, NOT_SERVING]
        options = (*tls.client_options(silo.port), "--encoder", "views:", *maps)
        path = installed_views(views)
        listed = json.loads(command("sealign", "tasks", "--json", *options, PYTHONPATH=path).stdout)
        assert [(row["task"], row["aligned"], row["state"]) for row in listed] == [
            ("colours", True, "cannot be served"),
            ("shapes", True, "cannot be served"),
        ]
        ran = command("sealign", "classify", "--task", "colours", *options, "query", PYTHONPATH=path)
        assert "lign" not in ran.stderr.replace("Sealign", "")
        assert "serve task 'colours' to nobody at present. Ask its operator, whose log says why" in ran.stderr
    for damaged in (False, True):
        if damaged:
            head(store, "shapes").write_bytes(b"damaged")
        ran = command("sealign-server", "info", store.directory, "--json")
        rows = {row["name"]: row["state"] for row in json.loads(ran.stdout)["tasks"]}
        assert "precision" in rows["colours"]
        assert ("head.safetensors" if damaged else "precision") in rows["shapes"]
    assert "cannot be served" in command("sealign-server", "info", store.directory).stdout
