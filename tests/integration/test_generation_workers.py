"""Several workers answer one generation: each holds keys of its own, and together they hold the vocabulary once."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealign.protocol import RowKind
from sealign.protocol.conversions.types import rows_to_wire
from sealign.protocol.v1 import generation_pb2 as pb
from sealign.protocol.v1.generation_pb2_grpc import GenerationStub
from sealign_client import Client, Finish, GeneratedToken
from tests.support.generation import (
    PRECISION,
    TASK,
    ClearGenerator,
    align,
    chosen_otherwise,
    loaded,
    make_silo,
    model_name,
)
from tests.support.processes import Server, serving
from tests.support.relay import Relay
from tests.support.silo import Tls
from tests.support.wire import raw_channel

PROMPT = "The film was"
WORKERS = 2


@pytest.fixture(scope="module")
def directory(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aligned silo whose vocabulary nobody has encoded yet. Copy it."""
    directory = tmp_path_factory.mktemp("workers") / "silo"
    align(make_silo(directory), loaded("one"), tls.client.subject)
    return directory


def pages(worker: int, file: Path) -> dict[str, int]:
    """What a process's mappings of a file add up to, kB by kind; empty if there are none.

    They must all be of this very file and shared with whoever else maps it.
    """
    sums: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{worker}/smaps").read_text().splitlines():
        if head := re.match(r"[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ (\d+) *(.*)", line):
            permissions, inode, path = head.groups()
            inside = path == str(file)
            if inside:
                assert (permissions, int(inode)) == ("r--s", file.stat().st_ino)
        elif inside and (size := re.match(r"(\w+): +(\d+) kB", line)):
            sums[size[1]] = sums.get(size[1], 0) + int(size[2])
    return sums


def read_by(workers: Sequence[int], file: Path) -> list[bool]:
    return [pages(worker, file).get("Rss", 0) > 0 for worker in workers]


def refused_keys(silo: Server) -> int:
    return sum(event["code"] == "UNKNOWN_KEY" for event in silo.events("call"))


def test_workers_share_the_vocabulary_and_not_the_keys(directory: Path, tls: Tls, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(directory, tmp_path / "silo"))
    clear = ClearGenerator.load(copy, loaded("one"))
    # At the precision itself there are more ties than a few.
    options = (copy, *tls.serve_options, "--workers", WORKERS, "--generation-precision", PRECISION / 2)
    with serving("sealign-server", "serve", *options, log=tmp_path / "log", workers=WORKERS) as silo:
        workers = [event["pid"] for event in silo.events("serving")]
        assert len(set(workers)) == WORKERS

        def described(_: int) -> pb.GenerationCard:
            rows = RowKind(clear.model.card.fingerprint, clear.map.id)
            request = pb.DescribeGenerationRequest(task=TASK, rows=rows_to_wire(rows))
            with raw_channel(silo.address, tls.authority, tls.client) as channel:
                return GenerationStub(channel).DescribeGeneration(request, timeout=120)

        with ThreadPoolExecutor(6) as pool:  # the first six connections, all at once
            revisions = {card.revision for card in pool.map(described, range(6))}
        assert len(revisions) == 1
        assert len(silo.events("vocabulary encoded")) == 1
        (file,) = copy.glob("generation/*/weights/*/*.safetensors")

        with Relay(silo.port) as relay, Client(tls.client_settings(relay.port, model=model_name("one"))) as client:
            told: list[GeneratedToken] = []
            for token in client.generate(PROMPT, max_tokens=48):
                told.append(token)
                if not all(read_by(workers, file)):
                    relay.cut()  # the next connection may reach another worker: the kernel chooses
        assert len(told) == 48
        assert told[-1].finish is Finish.LENGTH
        assert chosen_otherwise(clear, PROMPT, told) <= 3
        assert refused_keys(silo) == 1  # the second worker's
        size = file.stat().st_size / 1024
        for worker in workers:
            held = pages(worker, file)
            assert held["Size"] >= 0.99 * size
            assert held["Rss"] >= 0.9 * size
            assert held["Shared_Clean"] >= 0.9 * size  # by both
            assert held["Private_Dirty"] == held["Anonymous"] == 0
        assert silo.end() == 0
