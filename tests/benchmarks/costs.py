"""What one query, one key, one lease and one record cost, at a real silo over TLS and a ledger on PostgreSQL."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from sealign.ckks import Cipher, SecretKey
from sealign.protocol import RowKind
from sealign.protocol.conversions.alignment import space_from_wire
from sealign.protocol.v1.alignment_pb2 import DescribeSpaceRequest
from sealign_client import Client
from sealign_server.ledger import Budget, IdentityRegister, Ledger, Snapshot, Usage, UsageKey
from sealign_server.store import AuditTrail, SigningKeys
from tests.benchmarks.bench_service import DIMENSION, FixedEncoder, cpu_seconds, make_silo, unit_rows
from tests.benchmarks.fleet import LEASE
from tests.support.postgresql import postgresql
from tests.support.processes import Server, command, serving
from tests.support.wire import RawClient, Stubs

QUERIES, KEYS, BULK_ROWS, TRANSACTIONS = 1500, 100, 4096, 300


@dataclass(frozen=True)
class Measured:
    """Milliseconds of one core, and bytes.

    Attributes:
        query, key, refusal, row: at the silo: a query, taking a key, a refused call, a row in bulk.
        samples: times of single products, ms.
        up, down, key_bytes: of one query; of a public key.
        row_up, row_down: bytes of a row in bulk.
        transaction, snapshot, record: a lease, a look for revoked identities, an audit record.
        start: of a process, until it serves.
        resident: bytes of a process that serves.
    """

    query: float
    key: float
    refusal: float
    row: float
    samples: NDArray[np.float64]
    up: int
    down: int
    key_bytes: int
    row_up: float
    row_down: float
    transaction: float
    snapshot: float
    record: float
    start: float
    resident: int


def measured() -> Measured:
    """Measure a silo over TLS, and a ledger on PostgreSQL."""
    with postgresql() as database:  # before gRPC has threads, which do not like forks
        ledger = _ledger(database.fresh())
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        make_silo(work / "silo")
        assert command("sealign-server", "certificates", work / "tls", "--host", "localhost").returncode == 0
        tls = ("--tls-cert", work / "tls" / "silo.pem", "--tls-key", work / "tls" / "silo.key")
        arguments = ("serve", work / "silo", "--listen", "127.0.0.1:0", *tls)
        with serving("sealign-server", *arguments, log=work / "log") as silo:
            start, ca, address = cpu_seconds(silo), work / "tls" / "ca.pem", f"localhost:{silo.port}"
            with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes())) as channel:
                found = _queries(silo, Stubs.of(channel))
            with Client(silo=address, tls_ca=ca, encoder=FixedEncoder()) as client:
                found |= _bulk(silo, client)
            found["resident"] = silo.resident_bytes
        trail = AuditTrail(work / "audit", SigningKeys(work / "signing" / "keys.json"))
        record = _cpu(lambda: trail.append("query", "CN=client,O=acme", {"task": "topics", "rows": 1}))
        trail.close()
    return Measured(record=record, start=start * 1e3, **ledger, **found)


def _ledger(url: str) -> dict[str, Any]:
    ledger, numbers = Ledger(Path("none"), url), count()
    usage, register, far = Usage(ledger), IdentityRegister(ledger), Budget(10**9, 10**9, 10**9)
    transaction = _wall(lambda: usage.debit(UsageKey(f"CN={next(numbers)}", "topics", "c"), 1, LEASE, far))
    snapshot = _wall(lambda: register.snapshot(Snapshot()))
    ledger.close()
    return {"transaction": transaction, "snapshot": snapshot}


def _queries(silo: Server, stubs: Stubs) -> dict[str, Any]:
    card = FixedEncoder.card.fingerprint
    asked = DescribeSpaceRequest(space="embeddings", encoder=card, dimension=DIMENSION)
    rows = RowKind(card, space_from_wire(stubs.alignment.DescribeSpace(asked, timeout=60)).maps[0].id)
    raw = RawClient.meet(stubs, rows)
    request, first = raw.request(unit_rows(1)), raw.request(unit_rows(1), with_key=True)
    times: list[float] = []

    def send() -> None:
        times.append(raw.send(request).server_micros / 1e3)

    def keyed(cipher: Cipher) -> None:
        other = RawClient(stubs, rows, raw.task, cipher)
        other.send(other.request(unit_rows(1), with_key=True))

    def unknown() -> None:
        with suppress(grpc.RpcError):
            raw.send(strange)

    reply = raw.send(request)
    query = _silo_cpu(silo, send, QUERIES)
    ciphers = iter([Cipher(raw.plan, SecretKey.generate(raw.plan.parameters)) for _ in range(KEYS + 1)])
    strange = RawClient(stubs, rows, raw.task, next(ciphers)).request(unit_rows(1))
    refusal = _silo_cpu(silo, unknown, 5 * KEYS)
    key = _silo_cpu(silo, lambda: keyed(next(ciphers)), KEYS) - query
    up = request.ByteSize()
    return {
        "query": query,
        "refusal": refusal,
        "key": max(0.0, key),
        "samples": np.clip(times, None, np.percentile(times, 99)),
        "up": up,
        "down": reply.ByteSize(),
        "key_bytes": first.ByteSize() - up,
    }


def _bulk(silo: Server, client: Client) -> dict[str, Any]:
    bulk = unit_rows(BULK_ROWS)
    client.logits(bulk[:1024])
    row = _silo_cpu(silo, lambda: client.logits(bulk), 1) / BULK_ROWS
    plan = max(client.describe().tasks[0].plans, key=lambda plan: plan.rows)
    cost = plan.cost_of(plan.rows)
    return {"row": row, "row_up": cost.request_bytes / plan.rows, "row_down": cost.reply_bytes / plan.rows}


def _silo_cpu(silo: Server, work: Callable[[], object], times: int) -> float:
    """Return milliseconds of the silo's processor time for one time."""
    before = cpu_seconds(silo)
    for _ in range(times):
        work()
    return (cpu_seconds(silo) - before) / times * 1e3


def _cpu(work: Callable[[], object]) -> float:
    """Return milliseconds of this process's processor time."""
    work()
    started = time.process_time()
    for _ in range(TRANSACTIONS):
        work()
    return (time.process_time() - started) / TRANSACTIONS * 1e3


def _wall(work: Callable[[], object]) -> float:
    """Return the tenth percentile of milliseconds, since another process works, and waits for others of the machine."""
    times = []
    for _ in range(TRANSACTIONS):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1e3)
    return float(np.percentile(times, 10))
