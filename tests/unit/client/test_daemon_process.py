"""The daemon's process: its socket, its token, its health, with a silo that comes and goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealign.errors import AuthenticationError, InvalidInputError, StorageError
from sealign.protocol.v1 import daemon_pb2 as pb
from sealign.protocol.v1.daemon_pb2_grpc import DaemonStub
from sealign_client import Client
from sealign_client.daemon.token import read_token
from tests.support.daemon import daemon_channel
from tests.support.fakesilo import Address, FakeSilo, serving_fake, silo_files
from tests.support.processes import Server, command, serving
from tests.support.views import PUBLIC, client_encoder, installed_views
from tests.support.wire import refused

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
TEXTS = ["query 1", "query 2"]


@contextmanager
def daemon(address: Address, directory: Path, listen: str, *more: str, **variables: Any) -> Iterator[Server]:
    views = directory / "views"
    views.mkdir()
    options = ("--silo", f"localhost:{address.port}", "--tls-ca", address.authority.certificate, "--encoder", "views:")
    files = ("--map-directory", directory / "maps", "--listen", listen)
    variables["PYTHONPATH"] = installed_views(views)
    with serving("sealign", "daemon", *options, *files, *more, log=directory / "daemon.log", **variables) as server:
        yield server


def health(channel: grpc.Channel, service: str, wanted: int) -> bool:
    """Whether a service has the health that is wanted within ten seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        request = health_pb2.HealthCheckRequest(service=service)
        if health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status == wanted:
            return True
        time.sleep(0.1)
    return False


def test_it_is_alive_before_the_silo_is_and_ready_when_it_answers(tmp_path: Path) -> None:
    fake, files = FakeSilo(), silo_files(tmp_path)
    with (
        serving_fake(fake, *files) as address,
        Client(**address.settings(map_directory=tmp_path / "maps"), encoder=client_encoder()) as client,
    ):
        client.align(PUBLIC)
        expected = [result.label for result in client.classify(TEXTS)]
    with daemon(address, tmp_path, "127.0.0.1:0") as server, daemon_channel(server) as channel:
        assert health(channel, "", SERVING)
        assert health(channel, "sealign.v1.Daemon", NOT_SERVING)
        with serving_fake(fake, *files, port=address.port):
            assert health(channel, "sealign.v1.Daemon", SERVING)
            reply = DaemonStub(channel).ClassifyTexts(pb.ClassifyTextsRequest(texts=TEXTS), timeout=30)
            assert [item.label for item in reply.classifications] == expected
            assert all(item.HasField("probability") for item in reply.classifications)
            with grpc.insecure_channel(server.address) as stranger:
                assert health(stranger, "", SERVING)
                with refused(grpc.StatusCode.UNAUTHENTICATED, AuthenticationError, "authorization: Bearer"):
                    DaemonStub(stranger).ListTasks(pb.ListTasksRequest(), timeout=10)
        assert health(channel, "", SERVING)
        assert health(channel, "sealign.v1.Daemon", NOT_SERVING)
    token = Path(server.events("serving")[0]["token_file"])
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700


def test_a_socket_is_its_owners_and_needs_no_token(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    with Client(**address.settings(map_directory=tmp_path / "maps"), encoder=client_encoder()) as client:
        client.align(PUBLIC)
    socket = tmp_path / "d.sock"
    with daemon(address, tmp_path, f"unix:{socket}") as server:
        assert socket.stat().st_mode & 0o777 == 0o600
        with grpc.insecure_channel(server.address) as channel:
            (task,) = DaemonStub(channel).ListTasks(pb.ListTasksRequest(), timeout=30).tasks
            assert (task.name, task.ready) == ("colours", True)
            with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "text 2 is empty"):
                DaemonStub(channel).ClassifyTexts(pb.ClassifyTextsRequest(texts=["x", " "]), timeout=30)


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_the_metrics_of_another_program_are_left_alone(address: Address, tmp_path: Path, name: str) -> None:
    """A directory of several processes' metrics is inherited: it may be missing, or full of another program's files."""
    foreign = tmp_path / "metrics"
    for directory in (foreign, tmp_path / "missing"):
        if directory == foreign:
            directory.mkdir()
        own = tmp_path / f"daemon-{directory.name}"
        own.mkdir()
        with daemon(address, own, f"unix:{own}/d", "--http", f"unix:{own}/h", **{name: str(directory)}):
            transport = httpx.HTTPTransport(uds=f"{own}/h")
            with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
                assert client.get("/health").status_code == 200
                assert 'path="/health",status="200"} 1.0' in client.get("/metrics").raise_for_status().text
    assert list(foreign.iterdir()) == []


def test_an_address_without_a_port_is_refused(address: Address, tmp_path: Path) -> None:
    options = ("--silo", f"localhost:{address.port}", "--encoder", "use", "--listen", "127.0.0.1")
    ran = command("sealign", "daemon", *options)
    assert ran.returncode == 2
    assert "listen" in ran.stderr
    assert "port" in ran.stderr


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "made" / "token"
    token = read_token(path)
    assert len(token) > 30
    assert read_token(path) == token
    path.chmod(0o644)
    with pytest.raises(StorageError, match="chmod 600"):
        read_token(path)
    path.write_text("short\n")
    path.chmod(0o600)
    with pytest.raises(InvalidInputError, match="shorter"):
        read_token(path)
