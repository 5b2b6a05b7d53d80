"""Processes: workers, signals, ports, memory, clients that vanish."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from queue import Queue

import grpc
import numpy as np
import pytest

from sealign.encoders import Encoder
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloStub
from sealign_client import Client
from tests.support.corpus import Corpus
from tests.support.processes import Server, command, serving
from tests.support.silo import ClearModel, Tls, assert_right, own_silo
from tests.support.wire import Embeddings, RawClient, raw_channel

_ENDLESS_CLIENT = """
import sys
from itertools import repeat
from pathlib import Path
import grpc
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloStub

address, request, *files = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))
query = pb.ClassifyRequest.FromString(Path(request).read_bytes())
for _ in SiloStub(grpc.secure_channel(address, credentials)).ClassifyStream(repeat(query)):
    print("reply", flush=True)
"""


@pytest.mark.usefixtures("still_serves")
def test_client_killed_in_mid_stream(
    silo: Server, raw: RawClient, tls: Tls, query_rows: Embeddings, tmp_path: Path
) -> None:
    request = tmp_path / "request"
    request.write_bytes(raw.request(query_rows[:1]).SerializeToString())
    files = map(str, (tls.authority.certificate, tls.client.key, tls.client.certificate))
    arguments = [sys.executable, "-c", _ENDLESS_CLIENT, silo.address, str(request), *files]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        for _ in range(5):
            assert stranger.stdout.readline() == b"reply\n"
        stranger.kill()
    assert stranger.returncode == -signal.SIGKILL
    assert not silo.events("internal error")


def test_sigterm_lets_work_under_way_finish(
    aligned_copy: Path, tls: Tls, encoder: Encoder, query_rows: Embeddings, tmp_path: Path
) -> None:
    with own_silo(aligned_copy, tls, encoder, tmp_path / "log") as (silo, client):
        task = client.describe().tasks[0]
        expected = ClearModel.load(aligned_copy, encoder.card.fingerprint).outputs(query_rows[:1])
        with raw_channel(silo.address, tls.authority, tls.client) as channel:
            raw = RawClient.meet(SiloStub(channel), encoder.card, task)
            request = raw.request(query_rows[:1])
            sent: Queue[pb.ClassifyRequest | None] = Queue()
            replies = raw.stub.ClassifyStream(iter(sent.get, None), timeout=60)
            sent.put(request)
            next(replies)
            silo.process.send_signal(signal.SIGTERM)
            silo.wait_for("draining")
            for _ in range(3):
                sent.put(request)
                assert np.abs(raw.outputs(next(replies)) - expected).max() <= 1 / 256
            sent.put(None)
            with pytest.raises(StopIteration):
                next(replies)
        assert silo.end() == 0
        assert silo.events("stopped")


def test_two_workers(
    trained_directory: Path,
    tls: Tls,
    encoder: Encoder,
    corpus: Corpus,
    public_rows: Embeddings,
    query_rows: Embeddings,
    tmp_path: Path,
) -> None:
    directory = Path(shutil.copytree(trained_directory, tmp_path / "silo"))
    options = ("--workers", "2")
    files = (directory, *tls.serve_options, *options)
    with (
        serving("sealign-server", "serve", *files, log=tmp_path / "log", workers=2) as silo,
        Client(tls.client_settings(silo.port), encoder=encoder) as client,
    ):
        workers = {event["pid"] for event in silo.events("serving")}
        assert len(workers) == 2
        client.align(corpus.public)
        assert_right(client, directory, query_rows[:2])
        # Which worker gets a connection is the kernel's choice: a key is known to one of them only.
        with raw_channel(silo.address, tls.authority, tls.client) as channel:
            raw = RawClient.meet(SiloStub(channel), encoder.card, client.describe().tasks[0])
            request = raw.request(query_rows[:1])
        outcomes = set()
        for _ in range(24):
            with raw_channel(silo.address, tls.authority, tls.client) as channel:
                stub = SiloStub(channel)
                card = stub.Describe(pb.DescribeRequest(encoder=encoder.card.fingerprint), timeout=30)
                assert card.map.rows == len(public_rows)
                assert card.tasks[0].plans
                try:
                    stub.Classify(request, timeout=30)
                    outcomes.add("served")
                except grpc.RpcError as error:
                    outcomes.add(error.details() or "")
        assert len(outcomes) == 2
        assert any("upload the key" in outcome for outcome in outcomes)
        assert silo.end() == 0


def test_a_dead_worker_ends_the_silo(aligned_copy: Path, tls: Tls, tmp_path: Path) -> None:
    """So that whoever supervises the process starts it again, whole."""
    files = (aligned_copy, *tls.serve_options, "--workers", "2")
    with serving("sealign-server", "serve", *files, log=tmp_path / "log", workers=2) as silo:
        os.kill(silo.events("serving")[0]["pid"], signal.SIGKILL)
        assert silo.process.wait(timeout=60) == 1
        assert "error: a worker process ended unexpectedly" in silo.log


def test_workers_do_not_outlive_their_supervisor(aligned_copy: Path, tls: Tls, tmp_path: Path) -> None:
    """Or a killed silo could not start again: its port would be taken."""
    files = (aligned_copy, *tls.serve_options, "--workers", "2")
    with serving("sealign-server", "serve", *files, log=tmp_path / "log", workers=2) as silo:
        silo.process.kill()
        silo.wait_for("stopped", 2)


def test_a_port_in_use_is_one_clear_error(silo: Server, aligned_copy: Path, tls: Tls) -> None:
    """Two silos never share a port by accident, although workers do."""
    files = (aligned_copy, *tls.serve_options, "--listen", f"127.0.0.1:{silo.port}")
    ran = command("sealign-server", "serve", *files)
    assert ran.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{silo.port}" in ran.stderr


@pytest.mark.usefixtures("still_serves")
def test_memory_stays_put_over_two_thousand_queries(silo: Server, raw: RawClient, query_rows: Embeddings) -> None:
    request = raw.request(query_rows[:1])
    for _ in range(300):
        raw.send(request)
    before = silo.resident_bytes
    for _ in range(2000):
        raw.send(request)
    assert silo.resident_bytes - before < 20e6
