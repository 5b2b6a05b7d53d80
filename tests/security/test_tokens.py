"""Tokens: who they stand for, how they end, and where they never go; certificates that are replaced while serving."""

from __future__ import annotations

import csv
import json
import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from sealign.errors import AuthenticationError, InvalidInputError, SealignError
from sealign.protocol.v1 import classification_pb2 as pb
from sealign.protocol.v1.classification_pb2_grpc import ClassificationStub
from sealign_client import AsyncClient, Client, ClientSettings
from sealign_server.cli import app
from sealign_server.ledger import IdentityRegister, Ledger, Snapshot, token_digest
from sealign_server.store import SiloStore, audit_records
from tests.support.certificates import Authority, Identity
from tests.support.processes import Server, command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import client_encoder, make_silo


@pytest.fixture(scope="module")
def files(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """The silo's certificate, as files that a test may replace."""
    directory = tmp_path_factory.mktemp("tls")
    shutil.copy2(tls.silo.certificate, directory / "silo.pem")
    shutil.copy2(tls.silo.key, directory / "silo.key")
    return Identity(directory / "silo.pem", directory / "silo.key")


@pytest.fixture(scope="module")
def silo(files: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A silo that knows callers by tokens alone."""
    scratch = tmp_path_factory.mktemp("tokens")
    make_silo(scratch / "silo")
    options = ("--tls-cert", files.certificate, "--tls-key", files.key, "--tokens", "--listen", "127.0.0.1:0")
    with serving("sealign-server", "serve", scratch / "silo", *options, log=scratch / "log") as server:
        yield server


@pytest.fixture(scope="module")
def directory(silo: Server) -> Path:
    return silo.log_path.parent / "silo"


@pytest.fixture
def register(directory: Path) -> IdentityRegister:
    return IdentityRegister(Ledger(SiloStore(directory).ledger_path))


def client(silo: Server, authority: Authority, **fields: object) -> Client:
    settings = ClientSettings(silo=f"localhost:{silo.port}", tls_ca=authority.certificate, **fields)  # type: ignore[arg-type]
    return Client(settings, encoder=client_encoder())


def outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except SealignError as error:
        return str(error)
    return "served"


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for a condition, and return how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return time.monotonic() - started


def test_a_token_is_shown_once_names_its_identity_and_stops_when_revoked(
    silo: Server, directory: Path, tls: Tls, tmp_path: Path
) -> None:
    made = command("sealign-server", "identity", "add", directory, "acme", "--days", 30)
    token = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    held = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert token.encode() not in held
    assert token not in silo.log
    file = tmp_path / "token"
    file.write_text(f"{token}\n")
    with client(silo, tls.authority, silo_token_file=file) as holder:
        until(lambda: outcome(holder.silo) == "served", 10)
        assert holder.silo().identity == "acme"
        listed = json.loads(command("sealign-server", "identity", "list", directory, "--json").stdout)
        assert [(row["identity"], row["state"], len(row["tokens"])) for row in listed] == [("acme", "valid", 1)]
        revoked = command("sealign-server", "identity", "revoke", directory, "acme")
        assert revoked.returncode == 0, revoked.stderr
        until(lambda: "revoked" in outcome(holder.silo), 10)
    deeds = [record for record in audit_records(directory / "audit") if record.kind == "identity"]
    assert [(record.identity, record.facts["deed"]) for record in deeds] == [("acme", "add"), ("acme", "revoke")]


@pytest.mark.parametrize("token", [None, "sealign_guessed", "x" * 2000])
def test_without_a_good_token_nothing_is_served(silo: Server, tls: Tls, token: str | None) -> None:
    with client(silo, tls.authority, silo_token=token) as stranger, pytest.raises(AuthenticationError):
        stranger.silo()


def test_rotation_lets_the_old_token_overlap_and_a_client_follow(
    silo: Server, tls: Tls, register: IdentityRegister, tmp_path: Path
) -> None:
    register.add("bank")
    file = tmp_path / "token"
    file.write_text(register.issue("bank", 3600)[1])
    with client(silo, tls.authority, silo_token_file=file) as holder:
        until(lambda: outcome(holder.silo) == "served", 10)
        new = register.issue("bank", 3600, overlap=1.5)[1]
        assert outcome(holder.silo) == "served"
        until(lambda: "has expired" in outcome(holder.silo), 10)
        file.write_text(new)
        assert outcome(holder.silo) == "served"


def test_a_revoked_caller_has_no_more_of_its_stream(silo: Server, tls: Tls, register: IdentityRegister) -> None:
    register.add("clinic")
    number, token = register.issue("clinic", None)
    secure = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(tls.authority.certificate.read_bytes()), grpc.access_token_call_credentials(token)
    )
    with grpc.secure_channel(silo.address, secure) as channel:
        stub = ClassificationStub(channel)

        def described() -> bool:
            code = stub.DescribeTasks.future(pb.DescribeTasksRequest(), timeout=30).code()
            return bool(code == grpc.StatusCode.OK)

        until(described, 10)
        sent: Queue[pb.ClassifyRequest | None] = Queue()
        stream = stub.ClassifyStream(iter(sent.get, None))
        register.revoke_token(number)
        until(lambda: not described(), 10)
        sent.put(pb.ClassifyRequest(task="colours"))
        assert stream.code() == grpc.StatusCode.UNAUTHENTICATED
        sent.put(None)


def test_a_token_is_never_sent_in_the_clear(tls: Tls) -> None:
    """The client makes channels with TLS alone; one to a server without it sends no call, and so no token."""
    received: list[bytes] = []

    def listen(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.settimeout(0.2)
                with connection, suppress(OSError):
                    while chunk := connection.recv(65536):
                        received.append(chunk)

    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = Thread(target=listen, args=(plain,), daemon=True)
        thread.start()
        settings = ClientSettings(
            silo=f"localhost:{plain.getsockname()[1]}",
            tls_ca=tls.authority.certificate,
            silo_token=SecretStr("sealign_secret"),
            timeout=1,
        )
        with Client(settings, encoder=client_encoder()) as holder:
            assert outcome(holder.silo) != "served"
    assert "sealign_secret" not in repr(settings)
    assert received
    assert b"sealign_secret" not in b"".join(received)


def test_files_that_hold_no_token(silo: Server, tls: Tls, tmp_path: Path) -> None:
    for content in ("", "two words", "smile ☺"):
        (tmp_path / "token").write_text(content)
        with (
            client(silo, tls.authority, silo_token_file=tmp_path / "token") as holder,
            pytest.raises(InvalidInputError, match="no token in the file"),
        ):
            holder.silo()
    two: dict[str, Any] = {"silo_token": "a", "silo_token_file": tmp_path / "token"}
    with pytest.raises(InvalidInputError, match="two places"):
        AsyncClient(silo="localhost:1", encoder="use", **two)


def test_certificates_are_reloaded_and_bad_ones_are_not(
    silo: Server, files: Identity, tls: Tls, register: IdentityRegister, tmp_path: Path
) -> None:
    register.add("shop")
    token = register.issue("shop", None)[1]

    def served(authority: Authority) -> bool:
        with client(silo, authority, silo_token=token, timeout=5) as fresh:
            return outcome(fresh.silo) == "served"

    until(lambda: served(tls.authority), 20)
    other = Authority(tmp_path, "other")
    new = other.issue("silo", "localhost", "127.0.0.1")
    files.key.write_bytes(new.key.read_bytes())  # of no certificate yet
    time.sleep(0.6)
    assert served(tls.authority)
    assert silo.events("new certificates cannot be used; the earlier ones stay")
    files.certificate.write_bytes(new.certificate.read_bytes())
    until(lambda: served(other), 20)
    assert silo.events("certificates reloaded")


def test_a_certificate_or_a_token_is_enough(tls: Tls, tmp_path: Path) -> None:
    store = make_silo(tmp_path / "silo")
    register = IdentityRegister(Ledger(store.ledger_path))
    register.add("acme")
    token = register.issue("acme", 60)[1]
    options = (*tls.serve_options, "--tokens", "--token-listen", "127.0.0.1:0", "--workers", 2)
    with serving("sealign-server", "serve", store.directory, *options, log=tmp_path / "log", workers=2) as silo:
        port = str(silo.events("serving")[0]["token_address"]).rpartition(":")[2]
        pair: dict[str, Any] = {"tls_cert": tls.client.certificate, "tls_key": tls.client.key}

        def identity(port: object, timeout: float = 20, **fields: object) -> str:
            known: dict[str, Any] = {"tls_ca": tls.authority.certificate, "timeout": timeout, **fields}
            settings = ClientSettings(silo=f"localhost:{port}", **known)
            with Client(settings, encoder=client_encoder()) as caller:
                return caller.silo().identity

        assert identity(silo.port, **pair) == tls.client.subject
        assert identity(silo.port, **pair, silo_token=token) == "acme"
        assert identity(port, silo_token=token) == "acme"
        wrong: list[dict[str, Any]] = [{}, pair, {"silo_token": "sealign_guessed"}]
        for fields in wrong:
            with pytest.raises(AuthenticationError):
                identity(port, **fields)
        with pytest.raises(SealignError):
            identity(silo.port, timeout=1, silo_token=token)  # TLS refuses it, which looks as if nobody were there


# Many at once


def imported(directory: Path, file: Path, *options: object) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["identity", "import", *map(str, (directory, file, *options))])
    return ran.exit_code, f"{ran.output}{ran.exception or ''}"


def test_an_import_gives_each_its_token(tmp_path: Path) -> None:
    store = make_silo(tmp_path / "silo")
    (tmp_path / "new.csv").write_text('identity,days\n"CN=a,O=acme",2\nbank,\n')
    (tmp_path / "more.jsonl").write_text('{"identity": "clinic", "days": 0.5}\n\n{"identity": "CN=shop"}\n')
    tokens = tmp_path / "tokens.csv"
    status, said = imported(store.directory, tmp_path / "new.csv", "--tokens", tokens, "--days", 7)
    assert (status, "added 2 identities" in said) == (0, True), said
    assert tokens.stat().st_mode & 0o777 == 0o600
    given = list(csv.DictReader(tokens.open()))
    register = IdentityRegister(Ledger(store.ledger_path))
    known = register.snapshot(Snapshot())
    for row, days in zip(given, (2, 7), strict=True):
        holder, expires = known.tokens[token_digest(row["token"])]
        assert holder == row["identity"]
        assert expires == pytest.approx(time.time() + 86400 * days, abs=600)
    assert imported(store.directory, tmp_path / "more.jsonl")[0] == 0
    assert {facts.identity: len(facts.tokens) for facts in register.all()} == {
        "CN=a,O=acme": 1, "bank": 1, "clinic": 0, "CN=shop": 0
    }  # fmt: skip
    deeds = [record for record in audit_records(store.audit_path) if record.kind == "identity"]
    assert [(deed.identity, deed.facts["deed"]) for deed in deeds] == [
        (name, "import") for name in ("CN=a,O=acme", "bank", "clinic", "CN=shop")
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("f.csv", "identity\nnew\nold\n", "line 3 of .*there is an identity 'old' already"),
        ("f.csv", "identity\nnew\n\x07\n", "line 3 of .*printable"),
        ("f.csv", "identity\nnew\nnew\n", "line 3 of .* line 2 has named"),
        ("f.csv", "identity,days\nnew,1\nmore,never\n", "line 3 of .*days is a number"),
        ("f.csv", "identity,days\nnew,1\nmore,0\n", "line 3 of .*days is a number"),
        ("f.csv", "identity,day\nnew,1\n", "has 'day'"),
        ("f.csv", "identity,days\nnew\n", "another number of values"),
        ("f.csv", "name\nnew\n", "no column identity"),
        ("f.csv", "identity\n", "holds no identity"),
        ("f.jsonl", '{"identity": "new"}\n{"identity": 5}\n', "line 2 of .* names no identity"),
        ("f.jsonl", '{"identity": "new"}\n[]\n', "line 2 of .* no JSON object"),
        ("f.jsonl", '{"identity": "new", "days": true}\n', "days is a number"),
        ("f.txt", "new\n", "neither .csv nor .jsonl"),
    ],
)
def test_an_import_is_whole_or_nothing(tmp_path: Path, name: str, content: str, says: str) -> None:
    store = make_silo(tmp_path / "silo")
    register = IdentityRegister(Ledger(store.ledger_path))
    register.add("old")
    (tmp_path / name).write_text(content)
    status, said = imported(store.directory, tmp_path / name, "--tokens", tmp_path / "tokens.csv")
    assert status == 1
    assert re.search(says, said.replace("\n", " ")), said
    assert [facts.identity for facts in register.all()] == ["old"]
    assert not (tmp_path / "tokens.csv").exists()


# The register


def test_identities_end_and_come_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    register = IdentityRegister(ledger)
    assert register.all() == []
    register.add("acme")
    first, token = register.issue("acme", None)
    second, _ = register.issue("acme", 60)
    assert register.all()[0].tokens == (first, second)
    assert register.all()[0].expires is None
    register.revoke("acme")
    assert register.all()[0].tokens == ()
    with pytest.raises(SealignError, match="no identity 'acme' that is valid"):
        register.issue("acme", 60)
    register.add("acme")
    assert register.all()[0].tokens == ()  # old tokens stay revoked
    with pytest.raises(InvalidInputError, match="identity rotate"):
        register.add("acme")
    stored = sqlite3.connect(tmp_path / "ledger.sqlite").execute("SELECT * FROM tokens").fetchall()
    assert token not in str(stored)
    register.revoke("CN=known by its certificate")
    known = register.snapshot(Snapshot())
    assert known.revoked == {"CN=known by its certificate"}
    assert register.snapshot(known) is known
