"""Processes: workers, signals, ports, memory, clients that vanish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import Queue

import grpc
import numpy as np
import pytest

from sealign.encoders import Encoder
from sealign.protocol import RowKind
from sealign.protocol.v1 import classification_pb2 as pb
from tests.support.processes import Server, command, serving
from tests.support.silo import ClearModel, Tls
from tests.support.wire import Embeddings, RawClient, Stubs, raw_stubs

_ENDLESS_CLIENT = """
import sys
from itertools import repeat
from pathlib import Path
import grpc
from sealign.protocol.v1 import classification_pb2 as pb
from sealign.protocol.v1.classification_pb2_grpc import ClassificationStub

address, request, *files = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))
query = pb.ClassifyRequest.FromString(Path(request).read_bytes())
for _ in ClassificationStub(grpc.secure_channel(address, credentials)).ClassifyStream(repeat(query)):
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


@pytest.fixture
def rows(aligned_copy: Path, tls: Tls, encoder: Encoder) -> RowKind:
    return ClearModel.load(aligned_copy, tls.client, encoder.card.fingerprint).rows


def right(raw: RawClient, directory: Path, tls: Tls, query_rows: Embeddings, *, with_key: bool = False) -> bool:
    """The silo answers a query as its directory says."""
    outputs = raw.outputs(raw.send(raw.request(query_rows[:1], with_key=with_key)))
    clear = ClearModel.load(directory, tls.client, raw.rows.encoder)
    return bool(np.abs(outputs - clear.outputs(query_rows[:1])).max() <= 1 / 256)


def test_sigterm_lets_work_under_way_finish(
    aligned_copy: Path, tls: Tls, rows: RowKind, query_rows: Embeddings, tmp_path: Path
) -> None:
    expected = ClearModel.load(aligned_copy, tls.client, rows.encoder).outputs(query_rows[:1])
    with (
        serving("sealign-server", "serve", aligned_copy, *tls.serve_options, log=tmp_path / "log") as silo,
        raw_stubs(silo.address, tls.authority, tls.client) as stubs,
    ):
        raw = RawClient.meet(stubs, rows)
        sent: Queue[pb.ClassifyRequest | None] = Queue()
        replies = stubs.classification.ClassifyStream(iter(sent.get, None), timeout=60)
        sent.put(raw.request(query_rows[:1]))
        next(replies)
        silo.process.send_signal(signal.SIGTERM)
        silo.wait_for("draining")
        for _ in range(3):
            sent.put(raw.request(query_rows[:1]))
            assert np.abs(raw.outputs(next(replies)) - expected).max() <= 1 / 256
        sent.put(None)
        with pytest.raises(StopIteration):
            next(replies)
        assert silo.end() == 0
        assert silo.events("stopped")


def test_no_call_ends_cancelled_when_the_silo_stops(
    aligned_copy: Path, tls: Tls, rows: RowKind, query_rows: Embeddings, tmp_path: Path
) -> None:
    """gRPC accepts calls before Python sees them: the old silo cancelled 46 of 64 of these."""
    with (
        serving("sealign-server", "serve", aligned_copy, *tls.serve_options, log=tmp_path / "log") as silo,
        raw_stubs(silo.address, tls.authority, tls.client) as stubs,
    ):
        raw = RawClient.meet(stubs, rows)
        request = raw.request(query_rows[:1])
        calls = [stubs.classification.Classify.future(request, timeout=60) for _ in range(40)]
        silo.process.send_signal(signal.SIGTERM)
        codes = [call.code() for call in calls]
        assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert codes.count(grpc.StatusCode.OK) >= 30
        assert silo.end() == 0


def test_sighup_does_not_kill(silo: Server, stubs: Stubs, raw: RawClient, query_rows: Embeddings) -> None:
    silo.process.send_signal(signal.SIGHUP)
    raw.outputs(raw.send(raw.request(query_rows[:1])))
    assert silo.is_running


def test_two_workers(aligned_copy: Path, tls: Tls, rows: RowKind, query_rows: Embeddings, tmp_path: Path) -> None:
    files = (aligned_copy, *tls.serve_options, "--workers", "2")
    with serving("sealign-server", "serve", *files, log=tmp_path / "log", workers=2) as silo:
        assert len({event["pid"] for event in silo.events("serving")}) == 2
        with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
            raw = RawClient.meet(stubs, rows)
            assert right(raw, aligned_copy, tls, query_rows)
        # Which worker gets a connection is the kernel's choice: a key is known to one of them only.
        outcomes = set()
        for _ in range(24):
            with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
                try:
                    raw.at(stubs).send(raw.request(query_rows[:1]))
                    outcomes.add("served")
                except grpc.RpcError as error:
                    outcomes.add(error.details() or "")
                    assert right(raw.at(stubs), aligned_copy, tls, query_rows, with_key=True)
                    break
        assert any("send the key" in outcome for outcome in outcomes)
        assert silo.end() == 0


def test_a_dead_worker_is_replaced_while_the_other_serves(
    aligned_copy: Path, tls: Tls, rows: RowKind, query_rows: Embeddings, tmp_path: Path
) -> None:
    files = (aligned_copy, *tls.serve_options, "--workers", "2")
    with serving("sealign-server", "serve", *files, log=tmp_path / "log", workers=2) as silo:
        os.kill(silo.events("serving")[0]["pid"], signal.SIGKILL)
        for _ in range(8):  # whichever worker the kernel chooses, it is one that lives
            with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
                assert right(RawClient.meet(stubs, rows), aligned_copy, tls, query_rows)
        silo.wait_for("serving", 3)
        assert silo.events("worker ended unexpectedly")
        assert silo.is_running
        assert silo.end() == 0


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
    assert ran.returncode == 75
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
