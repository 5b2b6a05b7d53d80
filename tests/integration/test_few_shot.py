"""Few-shot alignment over TLS with a real silo: texts that it releases join the public set, where it was told to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from sealign.alignment import AffineMap, RidgeStatistics, fit_ridge
from sealign.errors import NotFoundError, ReleaseRefusedError
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloStub
from sealign_client import Client
from sealign_server.releases import ReleaseLedger
from sealign_server.store import SiloStore
from tests.support.processes import Server, command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import (
    CLIENT_DIMENSION,
    PUBLIC,
    RELEASED,
    SILO_DIMENSION,
    TEXTS,
    ViewEncoder,
    client_encoder,
    few_texts,
    make_silo,
)
from tests.support.wire import raw_channel, refused

TASK = "colours"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_silo(tmp_path_factory.mktemp("few") / "silo").directory


@pytest.fixture(scope="module")
def server(directory: Path, tls: Tls) -> Iterator[Server]:
    options = (*tls.serve_options, "--release-texts")
    with serving("sealign-server", "serve", directory, *options, log=directory / "silo.log") as server:
        yield server


def clear_ridge(texts: tuple[str, ...], penalty: float, weight: float = 1.0) -> AffineMap:
    """The ridge map in the clear between both encoders' embeddings, released texts counted ``weight`` times."""
    weights = np.where(np.arange(len(texts)) < TEXTS, 1.0, weight)
    statistics = RidgeStatistics(CLIENT_DIMENSION, SILO_DIMENSION)
    statistics.update(client_encoder().encode(texts), ViewEncoder("the silo's", SILO_DIMENSION).encode(texts), weights)
    return fit_ridge(statistics, [penalty], source_fingerprint="a", target_fingerprint="b", public_set="c")


def test_both_modes_align_over_the_joined_set(server: Server, directory: Path, tls: Tls, tmp_path: Path) -> None:
    released = SiloStore(directory).load_released(TASK)
    assert released is not None
    joined = PUBLIC.joined(released.texts)
    assert len(joined) == TEXTS + RELEASED
    queries = client_encoder().encode([f"query {number}" for number in range(20)])

    with Client(tls.client_settings(server.port), encoder=client_encoder()) as client:
        card = client.align(PUBLIC, few_shot=TASK)
        assert (card.rows, card.public_set) == (len(joined), joined.digest)
        learned = SiloStore(directory).load_map(client.encoder.card.fingerprint)
        (weighed,) = server.events("released texts weighed")
        assert weighed["count"] == RELEASED
        clear = clear_ridge(joined.texts, card.penalty, weighed["weight"])
        assert np.linalg.norm(learned.weight - clear.weight) <= 1e-4 * np.linalg.norm(clear.weight)
        assert np.isfinite(client.logits(queries)).all()
    maps = tmp_path / "maps"
    with Client(tls.client_settings(server.port, map_directory=maps), encoder=client_encoder()) as client:
        card = client.align(PUBLIC, mode="encrypted", few_shot=TASK)
        assert (card.rows, card.public_set) == (len(joined), joined.digest)
        (path,) = maps.iterdir()
        clear = clear_ridge(joined.texts, card.penalty)
        assert np.linalg.norm(AffineMap.load(path).weight - clear.weight) <= 1e-3 * np.linalg.norm(clear.weight)
        # The joined set holds the same public texts: releases over both are counted together.
        left = {held.digest: held.releases_left for held in client.describe().public_sets}
        assert (left[PUBLIC.digest], left[joined.digest]) == (0, 0)
        with pytest.raises(ReleaseRefusedError):
            client.align(PUBLIC, mode="encrypted")
    (release,) = ReleaseLedger(SiloStore(directory).releases_path).releases()
    assert (release.public_set, release.base, release.rows) == (joined.digest, PUBLIC.digest, len(joined))
    with Client(tls.client_settings(server.port, map_directory=maps), encoder=client_encoder()) as client:
        assert client.describe().map == card
        assert np.isfinite(client.logits(queries)).all()
    for event in server.events("texts released"):
        assert (event["task"], event["count"]) == (TASK, RELEASED)
        assert event["client"] == release.client
    assert not any(text in server.log for text in released.texts)


def test_tasks_and_sets_that_there_are_not(server: Server, directory: Path, tls: Tls) -> None:
    with Client(tls.client_settings(server.port), encoder=client_encoder()) as client:
        with pytest.raises(NotFoundError, match="train --release"):
            client.align(PUBLIC, few_shot="weather")
        with pytest.raises(NotFoundError, match="byte for byte"):
            client.align(PUBLIC.joined(["one line more"]), few_shot=TASK)
    with raw_channel(server.address, tls.authority, tls.client) as channel:
        stub = SiloStub(channel)
        for task in ("", "../tasks/colours", "x" * 10_000):
            with refused(grpc.StatusCode.NOT_FOUND, "NotFoundError", "train --release"):
                stub.ReleasedTexts(pb.ReleasedTextsRequest(task=task))
        with refused(grpc.StatusCode.NOT_FOUND, "NotFoundError", "it holds"):
            stub.ReleasedTexts(pb.ReleasedTextsRequest(task=TASK, public_set="../silo"))
        # This set was kept without its texts, as by an earlier version.
        with refused(grpc.StatusCode.INTERNAL, "StorageError", "embed the set again"):
            stub.ReleasedTexts(pb.ReleasedTextsRequest(task=TASK, public_set=few_texts().digest))
        assert len(stub.ReleasedTexts(pb.ReleasedTextsRequest(task=TASK)).texts) == RELEASED


def test_a_silo_releases_nothing_unless_it_is_told_to(directory: Path, tls: Tls, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(directory, tmp_path / "silo"))
    with (
        serving("sealign-server", "serve", copy, *tls.serve_options, log=tmp_path / "log") as server,
        Client(tls.client_settings(server.port), encoder=client_encoder()) as client,
    ):
        with pytest.raises(ReleaseRefusedError, match="--release-texts"):
            client.align(PUBLIC, few_shot=TASK)
        with raw_channel(server.address, tls.authority, tls.client) as channel:
            for task in (TASK, "weather"):
                with refused(grpc.StatusCode.PERMISSION_DENIED, "ReleaseRefusedError", "does not release texts"):
                    SiloStub(channel).ReleasedTexts(pb.ReleasedTextsRequest(task=task))
        assert not server.events("texts released")
    info = command("sealign-server", "info", copy).stdout
    (row,) = [line for line in info.splitlines() if TASK in line and "│" in line and "0." in line]
    assert f" {RELEASED} " in row
