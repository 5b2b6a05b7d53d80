"""Encrypted alignment of real encoders, MiniLM with USE, over as few texts as are allowed; then the daemon."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import AffineMap, PublicSet, RidgeStatistics, fit_ridge
from sealign.encoders import Encoder
from sealign.protocol.v1 import daemon_pb2
from sealign.protocol.v1.daemon_pb2_grpc import DaemonStub
from sealign_client import Client
from sealign_server.store import SiloStore
from tests.support.corpus import Corpus
from tests.support.daemon import daemon_channel
from tests.support.processes import Server, command, serving
from tests.support.silo import TASK, Tls

GENERAL_TEXTS = f"general:{4 * 512}"


@pytest.fixture(scope="module")
def public() -> PublicSet:
    return PublicSet.named(GENERAL_TEXTS)


@pytest.fixture(scope="module")
def directory(trained_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The silo with a part of the general public set, added by the command line."""
    directory = Path(shutil.copytree(trained_directory, tmp_path_factory.mktemp("encrypted") / "silo"))
    made = command("sealign-server", "init", directory, "--encoder", "use", "--public", GENERAL_TEXTS)
    assert made.returncode == 0, made.stderr
    return directory


@pytest.fixture(scope="module")
def server(directory: Path, tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("logs") / "silo.log"
    with serving("sealign-server", "serve", directory, *tls.serve_options, log=log) as server:
        yield server


def test_minilm_to_use(
    server: Server,
    directory: Path,
    tls: Tls,
    encoder: Encoder,
    encoder_name: str,
    public: PublicSet,
    corpus: Corpus,
    tmp_path: Path,
) -> None:
    maps, texts = tmp_path / "maps", [item.text for item in corpus.queries]
    with Client(tls.client_settings(server.port, map_directory=maps), encoder=encoder) as client:
        card = client.align(public, mode="encrypted", register=False)
        results = client.classify(texts, TASK)
    assert 0 < card.explained_variance < 1
    store = SiloStore(directory)
    target = store.space.load_public_set(public.digest).rows
    statistics = RidgeStatistics(encoder.card.dimension, target.shape[1])
    statistics.update(encoder.encode(public.texts), target)
    names = {"source_fingerprint": "a", "target_fingerprint": "b", "public_set": "c"}
    clear = fit_ridge(statistics, [card.penalty], **names)
    (path,) = maps.glob("*.safetensors")
    own = AffineMap.load(path)
    assert np.linalg.norm(own.weight - clear.weight) <= 1e-3 * np.linalg.norm(clear.weight)
    head = store.tasks.load(TASK).trained.head
    expected = head.logits(clear.apply(encoder.encode(texts)))
    logits = np.array([result.logits for result in results])
    assert np.abs(logits - expected).max() < 0.03
    best = np.sort(expected)[:, -2:]
    decided = best[:, 1] - best[:, 0] > 0.06
    assert (logits.argmax(axis=1) == expected.argmax(axis=1))[decided].all()
    # A daemon that is given the maps uses this one.
    options = (*tls.client_options(server.port), "--encoder", encoder_name, "--listen", "127.0.0.1:0")
    with (
        serving("sealign", "daemon", *options, "--map-directory", maps, log=tmp_path / "daemon.log") as daemon,
        daemon_channel(daemon) as channel,
    ):
        stub = DaemonStub(channel)
        (task,) = stub.ListTasks(daemon_pb2.ListTasksRequest(), timeout=30).tasks
        assert task.ready
        reply = stub.ClassifyTexts(daemon_pb2.ClassifyTextsRequest(task=TASK, texts=texts[:5]), timeout=60)
        for got, result in zip(reply.classifications, results, strict=False):
            assert np.abs(np.array(got.logits) - result.logits).max() < 0.03
