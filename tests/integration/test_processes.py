"""Processes: workers, signals, ports, memory, clients that vanish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import grpc
import numpy as np
import pytest

from sealign.ckks import DEFAULT_PRECISION
from sealign.protocol.v1 import classification_pb2 as pb
from tests.support.processes import Server, command, serving
from tests.support.silo import ClearModel, Tls, align_plain, space_of
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo
from tests.support.wire import Embeddings, RawClient, raw_stubs

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


@dataclass(frozen=True)
class Aligned:
    """A silo's directory in which the client has a map, and what it sends and expects."""

    directory: Path
    clear: ClearModel
    queries: Embeddings

    def is_right(self, raw: RawClient, *, with_key: bool = False) -> bool:
        """The silo answers a query as its directory says."""
        outputs = raw.outputs(raw.send(raw.request(self.queries[:1], with_key=with_key)))
        return bool(np.abs(outputs - self.clear.outputs(self.queries[:1])).max() <= DEFAULT_PRECISION)


@pytest.fixture(scope="module")
def aligned(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Aligned:
    encoder, directory = client_encoder(), tmp_path_factory.mktemp("aligned") / "silo"
    rows = encoder.encode(PUBLIC.texts)
    store = make_silo(directory, calibrated=True)
    align_plain(space_of(store), tls.client.subject, encoder.card, PUBLIC.digest, rows)
    clear = ClearModel.load(directory, tls.client, encoder.card.fingerprint, "colours")
    return Aligned(directory, clear, rows[:8])


@pytest.fixture(scope="module")
def silo(aligned: Aligned, tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "silo.log"
    with serving("sealign-server", "serve", aligned.directory, *tls.serve_options, log=log) as server:
        yield server


@pytest.fixture
def raw(silo: Server, aligned: Aligned, tls: Tls) -> Iterator[RawClient]:
    with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
        raw = RawClient.meet(stubs, aligned.clear.rows)
        yield raw
        assert aligned.is_right(raw)


def test_client_killed_in_mid_stream(silo: Server, raw: RawClient, tls: Tls, aligned: Aligned, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(raw.request(aligned.queries[:1]).SerializeToString())
    files = map(str, (tls.authority.certificate, tls.client.key, tls.client.certificate))
    arguments = [sys.executable, "-c", _ENDLESS_CLIENT, silo.address, str(request), *files]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        for _ in range(5):
            assert stranger.stdout.readline() == b"reply\n"
        stranger.kill()
    assert stranger.returncode == -signal.SIGKILL
    assert not silo.events("internal error")


def test_sigterm_lets_work_under_way_finish(aligned: Aligned, tls: Tls, tmp_path: Path) -> None:
    queries = aligned.queries[:1]
    expected = aligned.clear.outputs(queries)
    with (
        serving("sealign-server", "serve", aligned.directory, *tls.serve_options, log=tmp_path / "log") as silo,
        raw_stubs(silo.address, tls.authority, tls.client) as stubs,
    ):
        raw = RawClient.meet(stubs, aligned.clear.rows)
        sent: Queue[pb.ClassifyRequest | None] = Queue()
        replies = stubs.classification.ClassifyStream(iter(sent.get, None), timeout=60)
        sent.put(raw.request(aligned.queries[:1]))
        next(replies)
        silo.process.send_signal(signal.SIGTERM)
        silo.wait_for("draining")
        for _ in range(3):
            sent.put(raw.request(aligned.queries[:1]))
            assert np.abs(raw.outputs(next(replies)) - expected).max() <= DEFAULT_PRECISION
        sent.put(None)
        with pytest.raises(StopIteration):
            next(replies)
        assert silo.end() == 0
        assert silo.events("stopped")


def test_no_call_ends_cancelled_when_the_silo_stops(aligned: Aligned, tls: Tls, tmp_path: Path) -> None:
    """gRPC accepts calls before Python sees them: the old silo cancelled 46 of 64 of these."""
    with (
        serving("sealign-server", "serve", aligned.directory, *tls.serve_options, log=tmp_path / "log") as silo,
        raw_stubs(silo.address, tls.authority, tls.client) as stubs,
    ):
        raw = RawClient.meet(stubs, aligned.clear.rows)
        request = raw.request(aligned.queries[:1])
        calls = [stubs.classification.Classify.future(request, timeout=60) for _ in range(40)]
        silo.process.send_signal(signal.SIGTERM)
        codes = [call.code() for call in calls]
        assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert codes.count(grpc.StatusCode.OK) >= 30
        assert silo.end() == 0


def test_sighup_does_not_kill(silo: Server, raw: RawClient, aligned: Aligned) -> None:
    silo.process.send_signal(signal.SIGHUP)
    raw.outputs(raw.send(raw.request(aligned.queries[:1])))
    assert silo.is_running


def test_two_workers(aligned: Aligned, tls: Tls, tmp_path: Path) -> None:
    files = (aligned.directory, *tls.serve_options, "--workers", "2")
    with serving("sealign-server", "serve", *files, log=tmp_path / "log", workers=2) as silo:
        assert len({event["pid"] for event in silo.events("serving")}) == 2
        with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
            raw = RawClient.meet(stubs, aligned.clear.rows)
            assert aligned.is_right(raw)
        # Which worker gets a connection is the kernel's choice: a key is known to one of them only.
        outcomes = set()
        for _ in range(24):
            with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
                try:
                    raw.at(stubs).send(raw.request(aligned.queries[:1]))
                    outcomes.add("served")
                except grpc.RpcError as error:
                    outcomes.add(error.details() or "")
                    assert aligned.is_right(raw.at(stubs), with_key=True)
                    break
        assert any("send the key" in outcome for outcome in outcomes)
        assert silo.end() == 0


def test_a_dead_worker_is_replaced_while_the_other_serves(aligned: Aligned, tls: Tls, tmp_path: Path) -> None:
    files = (aligned.directory, *tls.serve_options, "--workers", "2")
    with serving("sealign-server", "serve", *files, log=tmp_path / "log", workers=2) as silo:
        os.kill(silo.events("serving")[0]["pid"], signal.SIGKILL)
        silo.wait_for("worker ended unexpectedly")  # a connection that it had taken ends with it
        for _ in range(8):  # whichever worker the kernel chooses, it is one that lives
            with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
                assert aligned.is_right(RawClient.meet(stubs, aligned.clear.rows))
        silo.wait_for("serving", 3)
        assert silo.is_running
        assert silo.end() == 0


def test_connections_beyond_the_limit_are_closed_and_the_others_served(
    aligned: Aligned, tls: Tls, tmp_path: Path
) -> None:
    options = (aligned.directory, *tls.serve_options, "--max-connections", 2)
    with serving("sealign-server", "serve", *options, log=tmp_path / "log") as silo:
        with ExitStack() as stack:
            held = [stack.enter_context(raw_stubs(silo.address, tls.authority, tls.client)) for _ in range(3)]
            served = [RawClient.meet(stubs, aligned.clear.rows) for stubs in held[:2]]
            with pytest.raises(grpc.RpcError) as caught:
                held[2].classification.DescribeTasks(pb.DescribeTasksRequest(), timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert all(aligned.is_right(raw) for raw in served)
        with raw_stubs(silo.address, tls.authority, tls.client) as stubs:  # there is room again
            stubs.classification.DescribeTasks(pb.DescribeTasksRequest(), timeout=60, wait_for_ready=True)


def test_workers_do_not_outlive_their_supervisor(aligned: Aligned, tls: Tls, tmp_path: Path) -> None:
    """Or a killed silo could not start again: its port would be taken."""
    files = (aligned.directory, *tls.serve_options, "--workers", "2")
    with serving("sealign-server", "serve", *files, log=tmp_path / "log", workers=2) as silo:
        silo.process.kill()
        silo.wait_for("stopped", 2)


def test_a_port_in_use_is_one_clear_error(silo: Server, aligned: Aligned, tls: Tls) -> None:
    """Two silos never share a port by accident, although workers do."""
    files = (aligned.directory, *tls.serve_options, "--listen", f"127.0.0.1:{silo.port}")
    ran = command("sealign-server", "serve", *files)
    assert ran.returncode == 75
    assert f"error: cannot listen on 127.0.0.1:{silo.port}" in ran.stderr


def test_memory_stays_put_over_two_thousand_queries(silo: Server, raw: RawClient, aligned: Aligned) -> None:
    request = raw.request(aligned.queries[:1])
    for _ in range(300):
        raw.send(request)
    before = silo.resident_bytes
    for _ in range(2000):
        raw.send(request)
    assert silo.resident_bytes - before < 20e6
