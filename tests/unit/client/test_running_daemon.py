"""``sealign classify`` beside a daemon with the same settings, and what is refused before a model is loaded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from sealign.errors import InvalidInputError, NoMapError, NotFoundError, OverloadedError, UnavailableError
from sealign.protocol.status import trailers_of
from sealign.protocol.v1 import daemon_pb2 as pb
from sealign.protocol.v1.daemon_pb2_grpc import DaemonServicer, add_DaemonServicer_to_server
from sealign_client import Client, PublicSet
from sealign_client.daemon.private_socket import private_socket
from sealign_client.daemon.running import RunningDaemon
from sealign_client.settings import client_settings
from tests.support.fakesilo import Address, FakeSilo, clear_labels
from tests.support.processes import Server, command, environment, script, serving
from tests.support.views import PUBLIC, clear_queries, client_encoder, installed_views

TEXTS = ["query 1", "query 2"]


LIGHT = """
import sys
from sealign_client.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
heavy = {"numpy", "tenseal", "torch", "transformers", "cryptography", "safetensors", "rich"} & set(sys.modules)
assert not heavy, heavy
"""
"""A command that imports nothing that computes: whoever has a daemon waits for one text half a second, not several."""


@dataclass(frozen=True)
class Place:
    """A client that is aligned with a silo, as its commands are given it."""

    options: tuple[object, ...]
    path: str

    def classify(self, *arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return command("sealign", "classify", *self.options, *arguments, stdin=stdin, PYTHONPATH=self.path)


@pytest.fixture
def place(address: Address, tmp_path: Path) -> Place:
    with Client(**address.settings(map_directory=tmp_path / "maps"), encoder=client_encoder()) as client:
        client.align(PUBLIC)
    (tmp_path / "views").mkdir()
    server = ("--silo", f"localhost:{address.port}", "--tls-ca", address.authority.certificate)
    options = (*server, "--encoder", "views:", "--map-directory", tmp_path / "maps")
    return Place(options, installed_views(tmp_path / "views"))


@pytest.fixture
def daemon(place: Place, tmp_path: Path) -> Iterator[Server]:
    options = (*place.options, "--listen", "127.0.0.1:0")
    with serving("sealign", "daemon", *options, log=tmp_path / "daemon.log", PYTHONPATH=place.path) as server:
        yield server


@pytest.mark.usefixtures("daemon")
def test_a_command_uses_the_daemon_with_its_settings_and_answers_alike(place: Place, fake: FakeSilo) -> None:
    through = place.classify("--json", *TEXTS)
    assert through.returncode == 0, through.stderr
    light = subprocess.run(
        [sys.executable, "-c", LIGHT, "classify", *map(str, place.options), *TEXTS],
        env=environment(PYTHONPATH=place.path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (light.returncode, light.stderr) == (0, "")
    assert len(set(fake.keys)) == 1  # the daemon's, which it keeps
    alone = place.classify("--json", "--no-daemon", *TEXTS)
    assert len(set(fake.keys)) == 2
    for line, expected in zip(map(json.loads, through.stdout.splitlines()), alone.stdout.splitlines(), strict=True):
        own = json.loads(expected)
        assert line.keys() == own.keys()
        assert (line["label"], line["index"]) == (own["label"], own["index"])
        for name in ("logits", "probabilities", "ood_scores"):
            values = (line[name].values(), own[name].values()) if name != "logits" else (line[name], own[name])
            assert sorted(values[0]) == pytest.approx(sorted(values[1]), abs=0.02)


@pytest.mark.usefixtures("daemon")
def test_errors_of_the_daemon_are_those_of_the_command(place: Place) -> None:
    ran = place.classify("--task", "weather", "text")
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("error: The silo has no task 'weather'")
    lines = [f"query {number}" for number in range(200)]
    ran = place.classify(stdin="\n".join([*lines, "a" * 1_000_001, "query"]))
    assert (ran.returncode, len(ran.stdout.splitlines())) == (2, 200)
    assert "number 201: text 1 has 1,000,001 characters" in ran.stderr


def test_other_settings_are_another_daemon(tmp_path: Path) -> None:
    file = tmp_path / "recentring.safetensors"
    file.write_bytes(b"1")
    one = client_settings(silo="localhost:1", encoder="views:", recentring=file)
    socket_of_one = private_socket(one)
    assert private_socket(one.model_copy(update={"timeout": 5.0, "listen": "127.0.0.1:9"})) == socket_of_one
    assert private_socket(one.model_copy(update={"encoder": "views:other"})) != socket_of_one
    os.utime(file, ns=(1, 1))  # adapted anew
    assert private_socket(one) != socket_of_one


def test_a_socket_that_a_killed_daemon_left_is_passed_over(place: Place, daemon: Server, tmp_path: Path) -> None:
    (left,) = (tmp_path / "data" / "sealign").glob("*.sock")
    assert left.stat().st_mode & 0o777 == 0o600
    assert left.parent.stat().st_mode & 0o077 == 0
    daemon.process.kill()
    daemon.process.wait()
    if not left.exists():
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(left))
    ran = place.classify(*TEXTS)
    assert (ran.returncode, len(ran.stdout.splitlines())) == (0, 2), ran.stderr


class BusyDaemon(DaemonServicer):
    """A daemon that has no room at first, in its own words and in those of gRPC's core."""

    def __init__(self, refusals: int = 4) -> None:
        self.refusals = refusals

    def ClassifyTexts(self, request: pb.ClassifyTextsRequest, context: Any) -> pb.ClassifyTextsReply:  # noqa: N802
        self.refusals -= 1
        if self.refusals >= 0:
            if self.refusals % 2:
                context.set_trailing_metadata(trailers_of(OverloadedError("full", retry_after=0.1)))
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
            context.abort(grpc.StatusCode.CANCELLED, "")
        return pb.ClassifyTextsReply(labels=["a"], classifications=[pb.Classified(label="a") for _ in request.texts])


@pytest.mark.parametrize(("refusals", "timeout"), [(4, 15.0), (1000, 1.0)])
def test_a_daemon_that_is_full_is_asked_again_for_as_long_as_a_silo(
    tmp_path: Path, refusals: int, timeout: float
) -> None:
    server, started = grpc.server(ThreadPoolExecutor(2)), time.monotonic()
    add_DaemonServicer_to_server(BusyDaemon(refusals), server)  # type: ignore[abstract]
    server.add_insecure_port(f"unix:{tmp_path}/socket")
    server.start()
    with RunningDaemon(tmp_path / "socket", timeout) as running:
        if refusals < 1000:
            assert [result.label for result in running.classify(TEXTS)] == ["a", "a"]
        else:
            with pytest.raises((OverloadedError, UnavailableError)):
                running.classify(TEXTS)
            assert time.monotonic() - started < 5
    server.stop(None)


@pytest.mark.parametrize("option", ["--daemon", "--no-daemon"])
def test_a_result_does_not_wait_for_later_lines(place: Place, daemon: Server, option: str) -> None:
    process = subprocess.Popen(
        [script("sealign"), "classify", *map(str, place.options), option],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=environment(PYTHONPATH=place.path),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        for text in TEXTS:
            process.stdin.write(f"{text}\n")
            assert "\t" in process.stdout.readline()  # the input is still open
        process.stdin.close()
    assert process.returncode == 0


def test_a_faulty_text_among_many_is_named_by_its_own_number(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    with Client(**address.settings(map_directory=tmp_path / "maps"), encoder=client_encoder()) as client:
        client.align(PUBLIC)
        texts = clear_queries(300)
        results = client.classify_each([*texts[:200], " ", *texts[200:]])
        done = [next(results).label for _ in range(200)]
        clear, certain = clear_labels(fake, client, texts[:200])
        assert [label for label, sure in zip(done, certain, strict=True) if sure] == [
            label for label, sure in zip(clear, certain, strict=True) if sure
        ]
        with pytest.raises(InvalidInputError, match=r"number 201: text 1 is empty"):
            next(results)


def test_what_needs_no_model_is_refused_before_one_is_loaded(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    settings = address.settings(map_directory=tmp_path / "maps", encoder="transformers:/no/such/model")
    with Client(**settings) as client:
        with pytest.raises(NoMapError, match="Align first"):
            client.classify("query 1")
        with pytest.raises(NotFoundError, match="no task 'weather'"):
            client.classify("query 1", task="weather")
        with pytest.raises(NotFoundError, match="does not hold the public set"):
            client.align(PublicSet(("other", "texts")))
