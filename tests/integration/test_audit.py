"""What a silo with two workers records of its callers, and how an operator reads it."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sealign.errors import NotPermittedError
from sealign.protocol.v1 import alignment_pb2
from sealign_server.store import audit_records
from tests.support.processes import Server, command, serving
from tests.support.silo import ClearModel, Tls, align_plain, space_of
from tests.support.smallsilo import PUBLIC, SHARED, client_encoder, make_silo
from tests.support.wire import RawClient, raw_stubs, refused

ROWS = 5


@pytest.fixture(scope="module")
def directory(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder, directory = client_encoder(), tmp_path_factory.mktemp("audited") / "silo"
    store = make_silo(directory)
    align_plain(space_of(store), tls.client.subject, encoder.card, PUBLIC.digest, encoder.encode(PUBLIC.texts))
    return directory


@pytest.fixture(scope="module")
def silo(directory: Path, tls: Tls) -> Iterator[Server]:
    options = (*tls.serve_options, "--workers", 2, "--share-examples", "--max-rows-per-day", ROWS)
    with serving("sealign-server", "serve", directory, *options, log=directory.parent / "log", workers=2) as server:
        yield server


def exported(directory: Path, *options: object) -> list[dict[str, Any]]:
    """Records, as the command prints them."""
    ran = command("sealign-server", "audit", "export", directory, *options)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_deeds_and_refusals_of_all_workers_are_one_chain(silo: Server, directory: Path, tls: Tls) -> None:
    clear = ClearModel.load(directory, tls.client, client_encoder().card.fingerprint, "colours")
    rows = client_encoder().encode(PUBLIC.texts[:1])
    with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
        raw = RawClient.meet(stubs, clear.rows)
        request = raw.request(rows, with_key=True)
        for _ in range(ROWS - 1):
            raw.send(request)
        for _ in range(20):
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, None, "more than the 0"):
                raw.send(request)
        asked = alignment_pb2.SharedExamplesRequest(space="embeddings", task="colours", public_set=PUBLIC.digest)
        assert len(stubs.alignment.SharedExamples(asked, timeout=60).texts) >= SHARED
    silo.wait_for("serving", 2)
    for event in silo.events("serving"):
        os.kill(event["pid"], signal.SIGKILL)  # what was answered is recorded, whatever happens then
    silo.wait_for("serving", 4)
    records = exported(directory)
    counted = Counter(record["kind"] for record in records)
    assert (counted["key"], counted["query"], counted["examples"]) == (1, ROWS, 1)
    assert all(record["identity"] == tls.client.subject for record in records if record["kind"] != "checkpoint")
    query = next(record for record in records if record["kind"] == "query")
    assert query["facts"].keys() == {"request", "task", "encoder", "rows"}
    assert (query["facts"]["task"], query["facts"]["rows"]) == ("colours", 1)
    refusals = [record["facts"] for record in records if record["kind"] == "refusal"]
    assert refusals[0] == {"rpc": "Classify", "reason": "BUDGET_EXHAUSTED"}
    assert sum(refusal.get("repeated", 1) for refusal in refusals) <= 20
    texts = json.dumps(records)
    assert not any(text in texts for text in PUBLIC.texts[:10])
    ran = command("sealign-server", "audit", "verify", directory)
    assert ran.returncode == 0, ran.stderr
    assert f"the chain ends with {records[-1]['n']}:{records[-1]['hash']}" in ran.stdout


def test_the_end_is_signed_when_the_silo_stops_and_found_when_cut(directory: Path, tls: Tls, tmp_path: Path) -> None:
    files = ("--tls-cert", tls.silo.certificate, "--tls-key", tls.silo.key, "--listen", "127.0.0.1:0")
    with serving("sealign-server", "serve", directory, *files, log=tmp_path / "log") as silo:
        with (
            raw_stubs(silo.address, tls.authority, None) as stubs,
            refused(grpc.StatusCode.PERMISSION_DENIED, NotPermittedError, "without a certificate"),
        ):
            stubs.alignment.SharedExamples(alignment_pb2.SharedExamplesRequest(space="embeddings"), timeout=60)
        assert silo.end() == 0
    *_, refusal, last = audit_records(directory / "audit")
    assert (refusal.kind, refusal.identity) == ("refusal", "anonymous")
    assert refusal.facts == {"rpc": "SharedExamples", "reason": "NOT_PERMITTED"}
    shown = command("sealign-server", "audit", "tail", directory, "--lines", 1, "--kind", "checkpoint")
    assert shown.stdout.startswith(f"{last.number} {last.at} checkpoint - of={last.number - 1} signature=")
    file = directory / "audit" / "current.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))
    end = f"{last.number}:{last.digest}"
    cut = command("sealign-server", "audit", "verify", directory, "--expect", end)
    assert cut.returncode == 1
    assert "were cut off" in cut.stderr
