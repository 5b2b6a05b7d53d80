"""Certificates that cannot be trusted: one clear error each, and nothing is served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from sealign.encoders import Encoder
from sealign.errors import AuthenticationError, InvalidInputError, SealignError, UnavailableError
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloStub
from sealign_client import Client, ClientSettings
from tests.support.certificates import Authority, Identity
from tests.support.processes import Server, command
from tests.support.silo import Tls
from tests.support.wire import raw_channel

pytestmark = pytest.mark.usefixtures("still_serves")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that neither side trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def expired(tls: Tls) -> Identity:
    """From the right authority, an hour too old."""
    return tls.authority.issue("expired", "localhost", "127.0.0.1", expired=True)


def describe(encoder: Encoder, port: int, authority: Authority, identity: Identity | None) -> None:
    """One call by the SDK."""
    settings = ClientSettings(
        silo=f"localhost:{port}",
        tls_ca=authority.certificate,
        tls_cert=identity.certificate if identity else None,
        tls_key=identity.key if identity else None,
        timeout=10,
    )
    with Client(settings, encoder=encoder) as client:
        client.describe()


def serve_fails(directory: Path, identity: Identity, status: int) -> str:
    """The error of ``sealign-server serve``, which must refuse to start; the only line that is no warning."""
    files = ("--tls-cert", identity.certificate, "--tls-key", identity.key)
    ran = command("sealign-server", "serve", directory, *files, "--listen", "127.0.0.1:0")
    assert ran.returncode == status
    events = [str(json.loads(line)["event"]) for line in ran.stderr.strip().splitlines()]
    (line,) = (event for event in events if event.startswith("error: "))
    return line


@contextmanager
def impostor(identity: Identity) -> Iterator[int]:
    """A server that starts with any certificate; yields its port."""
    server = grpc.server(ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials([(identity.key.read_bytes(), identity.certificate.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def test_the_right_certificates_work(silo: Server, tls: Tls, encoder: Encoder) -> None:
    describe(encoder, silo.port, tls.authority, tls.client)


def test_silo_does_not_start_with_an_expired_certificate(silo_directory: Path, expired: Identity) -> None:
    line = serve_fails(silo_directory, expired, status=77)
    assert line.startswith(f"error: Certificate {expired.certificate} is valid from ")
    assert line.endswith("Renew the certificate.")


def test_client_refuses_an_expired_silo(tls: Tls, expired: Identity, encoder: Encoder) -> None:
    with impostor(expired) as port, pytest.raises(AuthenticationError, match="a certificate is expired"):
        describe(encoder, port, tls.authority, None)


def test_client_does_not_start_with_an_expired_certificate(
    silo: Server, tls: Tls, expired: Identity, encoder: Encoder
) -> None:
    with pytest.raises(AuthenticationError, match="Renew the certificate"):
        describe(encoder, silo.port, tls.authority, expired)


def test_silo_refuses_clients_without_a_good_certificate(
    silo: Server, tls: Tls, expired: Identity, stranger: Authority
) -> None:
    """Whatever the client's own software checks."""
    for identity in (None, expired, stranger.issue("guest", "guest")):
        with raw_channel(silo.address, tls.authority, identity) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                SiloStub(channel).Describe(pb.DescribeRequest(), timeout=10)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_missing_client_certificate_is_one_clear_error(silo: Server, tls: Tls, encoder: Encoder) -> None:
    with pytest.raises((AuthenticationError, UnavailableError), match="--tls-cert"):
        describe(encoder, silo.port, tls.authority, None)


def test_client_certificate_of_a_stranger(silo: Server, tls: Tls, stranger: Authority, encoder: Encoder) -> None:
    with pytest.raises((AuthenticationError, UnavailableError), match="--tls-cert"):
        describe(encoder, silo.port, tls.authority, stranger.issue("guest", "guest"))


def test_silo_of_a_stranger(silo: Server, tls: Tls, stranger: Authority, encoder: Encoder) -> None:
    with pytest.raises(AuthenticationError, match="not trusted by the other side"):
        describe(encoder, silo.port, stranger, tls.client)


def test_silo_under_another_name(tls: Tls, encoder: Encoder) -> None:
    elsewhere = tls.authority.issue("elsewhere", "elsewhere.example")
    with impostor(elsewhere) as port, pytest.raises(AuthenticationError, match="made for another name"):
        describe(encoder, port, tls.authority, None)


def test_key_of_another_certificate(silo_directory: Path, silo: Server, tls: Tls, encoder: Encoder) -> None:
    mixed = Identity(tls.client.certificate, tls.silo.key)
    with pytest.raises(InvalidInputError, match="does not belong to certificate"):
        describe(encoder, silo.port, tls.authority, mixed)
    assert "does not belong to certificate" in serve_fails(silo_directory, mixed, status=2)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no certificate in PEM form"),
        (b"no PEM at all", "holds no certificate in PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "its PEM block is no certificate"),
    ],
)
def test_files_that_are_no_certificates(
    silo: Server, tls: Tls, encoder: Encoder, tmp_path: Path, content: bytes, problem: str
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_bytes(content)
    with pytest.raises(InvalidInputError, match=rf"broken\.pem .*{problem}"):
        describe(encoder, silo.port, tls.authority, Identity(broken, tls.client.key))


def test_a_client_that_does_not_speak_tls(silo: Server) -> None:
    with grpc.insecure_channel(silo.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            SiloStub(channel).Describe(pb.DescribeRequest(), timeout=10)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_silo_that_does_not_speak_tls(tls: Tls, encoder: Encoder) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(SealignError) as caught:
            describe(encoder, port, tls.authority, tls.client)
        assert isinstance(caught.value, AuthenticationError | UnavailableError)
    finally:
        server.stop(None).wait()


def test_half_an_identity(silo: Server, tls: Tls, encoder: Encoder) -> None:
    with pytest.raises(InvalidInputError, match="go together"):
        Client(silo=silo.address, tls_ca=tls.authority.certificate, tls_cert=tls.client.certificate, encoder=encoder)
