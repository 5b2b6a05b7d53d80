"""Few-shot alignment over TLS with a real silo: texts that it releases join the public set, where it was told to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from sealign.alignment import AffineMap, RidgeStatistics, fit_ridge
from sealign.errors import NotFoundError, PeerFailedError, ReleaseRefusedError
from sealign.protocol.v1 import alignment_pb2 as pb
from sealign_client import Client
from sealign_server.ledger import Ledger, Releases
from sealign_server.store import SiloStore
from tests.support.processes import Server, command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import (
    CLIENT_DIMENSION,
    NAMES,
    PUBLIC,
    SHARED,
    SILO_DIMENSION,
    TEXTS,
    ViewEncoder,
    client_encoder,
    few_texts,
    make_silo,
)
from tests.support.wire import raw_stubs, refused

TASK = "colours"
EXAMPLES: dict[str, Any] = {"shared_examples": TASK, "accept_examples": lambda _: True}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_silo(tmp_path_factory.mktemp("few") / "silo").directory


@pytest.fixture(scope="module")
def server(directory: Path, tls: Tls) -> Iterator[Server]:
    options = (*tls.serve_options, "--share-examples")
    with serving("sealign-server", "serve", directory, *options, log=directory / "silo.log") as server:
        yield server


def clear_ridge(texts: tuple[str, ...], penalty: float, weight: float = 1.0) -> AffineMap:
    """The ridge map in the clear between both encoders' embeddings, released texts counted ``weight`` times."""
    weights = np.where(np.arange(len(texts)) < TEXTS, 1.0, weight)
    statistics = RidgeStatistics(CLIENT_DIMENSION, SILO_DIMENSION)
    statistics.update(client_encoder().encode(texts), ViewEncoder("the silo's", SILO_DIMENSION).encode(texts), weights)
    return fit_ridge(statistics, [penalty], source_fingerprint="a", target_fingerprint="b", public_set="c")


def test_both_modes_align_over_the_joined_set(server: Server, directory: Path, tls: Tls, tmp_path: Path) -> None:
    released = SiloStore(directory).tasks.examples(TASK)
    assert released is not None
    joined = PUBLIC.joined((*released.texts, *NAMES))
    assert len(joined) == TEXTS + SHARED + len(NAMES)
    queries = client_encoder().encode([f"query {number}" for number in range(20)])

    with Client(tls.client_settings(server.port), encoder=client_encoder()) as client:
        card = client.align(PUBLIC, **EXAMPLES)
        assert (card.rows, card.public_set) == (len(joined), joined.digest)
        learned = SiloStore(directory).space.load_map(tls.client.subject, card.id)
        (weighed,) = server.events("shared examples weighed")
        assert weighed["count"] == SHARED + len(NAMES)
        clear = clear_ridge(joined.texts, card.penalty, weighed["weight"])
        assert np.linalg.norm(learned.weight - clear.weight) <= 1e-4 * np.linalg.norm(clear.weight)
        assert np.isfinite(client.logits(queries)).all()
    maps = tmp_path / "maps"
    with Client(tls.client_settings(server.port, map_directory=maps), encoder=client_encoder()) as client:
        card = client.align(PUBLIC, mode="encrypted", **EXAMPLES)
        assert (card.rows, card.public_set) == (len(joined), joined.digest)
        (path,) = maps.glob("*.safetensors")
        clear = clear_ridge(joined.texts, card.penalty)
        assert np.linalg.norm(AffineMap.load(path).weight - clear.weight) <= 1e-3 * np.linalg.norm(clear.weight)
        # The joined set holds the same public texts: releases over both are counted together.
        left = {held.digest: held.releases_left for held in client.describe(refresh=True).space.public_sets}
        assert (left[PUBLIC.digest], left[joined.digest]) == (0, 0)
        with pytest.raises(ReleaseRefusedError):
            client.align(PUBLIC, mode="encrypted")
    (release,) = Releases(Ledger(SiloStore(directory).ledger_path)).all()
    assert (release.public_set, release.base, release.rows) == (joined.digest, PUBLIC.digest, len(joined))
    with Client(tls.client_settings(server.port, map_directory=maps), encoder=client_encoder()) as client:
        assert client.describe().map == card
        assert np.isfinite(client.logits(queries)).all()
    assert not any(text in server.log for text in released.texts)


def test_tasks_and_sets_that_there_are_not(server: Server, directory: Path, tls: Tls) -> None:
    with Client(tls.client_settings(server.port), encoder=client_encoder()) as client:
        with pytest.raises(NotFoundError, match="train --share"):
            client.align(PUBLIC, **EXAMPLES | {"shared_examples": "weather"})
        with pytest.raises(NotFoundError, match="byte for byte"):
            client.align(PUBLIC.joined(["one line more"]), **EXAMPLES)
    with raw_stubs(server.address, tls.authority, tls.client) as stubs:

        def ask(task: str, public_set: str = PUBLIC.digest) -> pb.SharedExamplesReply:
            request = pb.SharedExamplesRequest(space="embeddings", task=task, public_set=public_set)
            return stubs.alignment.SharedExamples(request, timeout=30)

        for task in ("", "../tasks/colours", "x" * 1_000):
            with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "train --share"):
                ask(task)
        with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "it holds"):
            ask(TASK, "0" * 64)
        # This set was kept without its texts; what is wrong at the silo stays there.
        with refused(grpc.StatusCode.INTERNAL, PeerFailedError, "under id"):
            ask(TASK, few_texts().digest)
        assert len(ask(TASK).texts) == SHARED + len(NAMES)


def test_a_silo_shares_nothing_but_label_names_unless_it_is_told_to(directory: Path, tls: Tls, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(directory, tmp_path / "silo"))
    with (
        serving("sealign-server", "serve", copy, *tls.serve_options, log=tmp_path / "log") as server,
        Client(tls.client_settings(server.port), encoder=client_encoder()) as client,
    ):
        assert not client.silo().limits.shares_examples
        offered: list[str] = []

        def accept(texts: Sequence[str]) -> bool:
            offered.extend(texts)
            return True

        card = client.align(PUBLIC, shared_examples=TASK, accept_examples=accept)
        assert tuple(offered) == NAMES
        assert card.public_set == PUBLIC.joined(NAMES).digest
        with pytest.raises(NotFoundError, match="train --share"):
            client.align(PUBLIC, shared_examples="weather", accept_examples=lambda _: True)
    info = command("sealign-server", "info", copy).stdout
    (row,) = [line for line in info.splitlines() if TASK in line and "│" in line and "0." in line]
    assert f" {SHARED} " in row
