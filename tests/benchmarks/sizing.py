"""What a silo needs: measured here, put together for pods, and simulated for a hundred of them.

Usage: python -m tests.benchmarks.sizing [--write]

Prints the figures of deploy/docs/pages/explanation/sizing.md, in Markdown; --write puts them into the page. Costs are
processor time, so that they hold on a busy machine too. Takes one to two minutes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
from tests.benchmarks.bench_service import CLASSES, DIMENSION, FixedEncoder, cpu_seconds, make_silo, unit_rows
from tests.benchmarks.fleet import LEASE, Costs, Fleet, Load, Outcome
from tests.support.postgresql import postgresql
from tests.support.processes import Server, command, serving
from tests.support.wire import RawClient, Stubs

PAGE = Path(__file__).parents[2] / "deploy" / "docs" / "pages" / "explanation" / "sizing.md"
BEGIN, END = "<!-- begin: python -m tests.benchmarks.sizing -->", "<!-- end -->"
QUERIES, KEYS, BULK_ROWS, TRANSACTIONS = 1500, 100, 4096, 300
BUSY = 0.7
"""Part of a core that is planned with."""
SHARED_LOCK_MS = 1.0
"""Assumed: a lock and a write on a volume of several machines."""
COMMIT_MS = 1.0
"""Assumed: a durable commit of the database; the measured transactions are not synced."""
PODS, CLIENTS, LIMIT = 100, 1000, 5.0


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

    @property
    def costs(self) -> Costs:
        """What the simulation takes: times of products, stretched to what a query costs the process in all."""
        query = self.samples * self.query / self.samples.mean() / 1e3
        return Costs(query, self.key / 1e3, self.refusal / 1e3, (self.transaction + COMMIT_MS) / 1e3)


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


# What follows


def costs_table(found: Measured) -> Iterator[str]:
    """Yield the table of what one query costs."""
    yield "| one core of a silo | ms of processor time | bytes up | bytes down |\n| --- | --- | --- | --- |"
    yield f"| a query, gRPC, TLS, budget and audit included | {found.query:.2f} | {found.up:,} | {found.down:,} |"
    yield f"| its public key, when the process does not hold it | {found.key:.2f} | {found.key_bytes:,} | |"
    yield f"| a refused call, such as one with an unknown key | {found.refusal:.2f} | {found.up:,} | |"
    yield f"| a row of a file | {found.row:.3f} | {found.row_up:,.0f} | {found.row_down:,.0f} |"
    yield f"| start of a process, until it serves | {found.start:,.0f} | | |"
    yield ""
    yield "| beside it | |\n| --- | --- |"
    yield f"| memory of a process with one task | {found.resident / 1e6:,.0f} MB |"
    yield f"| audit record, on a local disk | {found.record * 1e3:.0f} µs |"
    yield f"| lease of up to {LEASE} rows, PostgreSQL on this machine, not synced | {found.transaction:.2f} ms |"
    yield f"| look for revoked identities, the same | {found.snapshot:.2f} ms |"


def pods_table(found: Measured) -> Iterator[str]:
    """Yield the table of pods."""
    yield f"| workers | queries/s at {BUSY:.0%} of the cores | Mbit/s up | Mbit/s down | rows of files/s | memory |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for cores in (1, 4, 16):
        rate = cores * BUSY * 1e3 / found.query
        up, down = (rate * size * 8 / 1e6 for size in (found.up, found.down))
        rows, memory = cores * BUSY * 1e3 / found.row, cores * found.resident / 1e6
        size = f"{up:.1f} | {down:.1f} | {rows:,.0f} | {memory:,.0f} MB"
        yield f"| {cores} | {rate:,.0f} | {size} |"


def limits_table(found: Measured) -> Iterator[str]:
    """Yield the table of what saturates at how many queries per second, the first first."""
    per_core = BUSY * 1e3 / found.query
    polls = 2 * PODS * found.snapshot / 1e3
    limits = [
        (f"{PODS} pods of one core, at {BUSY:.0%}", PODS * per_core, "more pods"),
        ("1 Gbit/s into one pod", 125e6 / found.up, "more pods"),
        ("10 Gbit/s into the balancer", 1.25e9 / found.up, "several balancers"),
        (
            "leases, all clients known to all pods",
            LEASE * 1e3 / (found.transaction + COMMIT_MS),
            "calls of a client to few pods",
        ),
        (
            "leases of clients that each pod meets for the first time",
            1e3 / (found.transaction + COMMIT_MS),
            "calls of a client to few pods",
        ),
        ("one audit trail, local disk", 1e3 / found.record, "a directory for each machine"),
        ("one audit trail, volume of several machines", 1e3 / (found.record + SHARED_LOCK_MS), "the same"),
    ]
    yield "| what saturates | queries/s | remedy |\n| --- | --- | --- |"
    for what, rate, remedy in sorted(limits, key=lambda limit: limit[1]):
        yield f"| {what} | {rate:,.0f} | {remedy} |"
    yield ""
    yield (
        f"Each process looks for revoked identities twice a second. For {PODS} of them the database spends "
        f"{polls:.2f} s per second on that."
    )


def simulation_table(found: Measured) -> Iterator[str]:
    """Yield the table of the simulated fleet."""
    rate = 0.6 * PODS * 1e3 / found.query
    load: dict[str, Any] = {"pods": PODS, "clients": CLIENTS, "rate": rate, "seconds": 5.0}
    replaced: dict[str, Any] = {**load, "seconds": 10.0, "restart": 1.0}
    flood: dict[str, Any] = {**load, "flood": rate}
    cases = {
        "each call to any pod": Load(**load),
        "each client to 3 pods": Load(**load, affine=3),
        "any pod, all pods new at once": Load(**load, warm=False),
        "3 pods, all pods new at once": Load(**load, warm=False, affine=3),
        "any pod, one pod replaced per second": Load(**replaced),
        "3 pods, one pod replaced per second": Load(**replaced, affine=3),
        "any pod, one more client sends as much as all": Load(**flood),
        f"the same, rate limit of {LIMIT:.0f} per pod and identity": Load(**flood, limit=LIMIT),
        "3 pods, one more client sends as much as all": Load(**flood, affine=3),
        "the same, rate limit of 50": Load(**flood, affine=3, limit=10 * LIMIT),
    }
    yield f"{PODS} pods of one core, {CLIENTS:,} clients, {rate:,.0f} queries/s, which is 60 % of the cores.\n"
    yield "| | p50 | p99 | longest | calls per answer | with key | leases | longest lease |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, case in cases.items():
        yield f"| {name} | {_line(Fleet(found.costs, case).run(), rate * case.seconds)} |"


def _line(outcome: Outcome, sent: float) -> str:
    p50, p99, longest = (_milliseconds(float(q)) for q in np.percentile(outcome.milliseconds, (50, 99, 100)))
    answered = len(outcome.milliseconds)
    shares = f"{outcome.attempts / sent:.2f} | {outcome.keyed / answered:.1%}"
    return f"{p50} | {p99} | {longest} | {shares} | {outcome.leases:,} | {_milliseconds(outcome.ledger_wait)}"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def report() -> str:
    """Return the figures in Markdown."""
    found = measured()
    load = os.getloadavg()[0]
    parts = [
        f"d = {DIMENSION}, C = {CLASSES}; {os.cpu_count()} cores shared with what asked, load {load:.0f}.",
        "\n".join(costs_table(found)),
        "\n".join(pods_table(found)),
        "\n".join(limits_table(found)),
        "\n".join(simulation_table(found)),
    ]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> None:
    text = report()
    print(text)
    if "--write" in arguments:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
