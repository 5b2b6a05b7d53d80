"""What a silo needs: measured here, put together for pods, and simulated for a hundred of them.

Usage: python -m tests.benchmarks.sizing [--write]

Prints the figures of deploy/docs/pages/explanation/sizing.md, in Markdown; --write puts them into the page. Costs are
processor time, so that they hold on a busy machine too. Takes half a minute to two minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.bench_service import CLASSES, DIMENSION
from tests.benchmarks.costs import Measured, measured
from tests.benchmarks.fleet import LEASE, Costs, Fleet, Load, Outcome

PAGE = Path(__file__).parents[2] / "deploy" / "docs" / "pages" / "explanation" / "sizing.md"
BEGIN, END = "<!-- begin: python -m tests.benchmarks.sizing -->", "<!-- end -->"
BUSY = 0.7
"""Part of a core that is planned with."""
SHARED_LOCK_MS = 1.0
"""Assumed: a lock and a write on a volume of several machines."""
COMMIT_MS = 1.0
"""Assumed: a durable commit of the database; the measured transactions are not synced."""
AT_ONCE = 4
"""Assumed: leases of different clients that a database of four cores does at the same time."""
PODS, CLIENTS, LIMIT = 100, 1000, 5.0


def costs_of(found: Measured) -> Costs:
    """Return what the simulation takes: times of products, stretched to what a query costs the process in all."""
    query = found.samples * found.query / found.samples.mean() / 1e3
    return Costs(query, found.key / 1e3, found.refusal / 1e3, (found.transaction + COMMIT_MS) / 1e3, AT_ONCE)


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
            AT_ONCE * LEASE * 1e3 / (found.transaction + COMMIT_MS),
            "calls of a client to few pods",
        ),
        (
            "leases of clients that each pod meets for the first time",
            AT_ONCE * 1e3 / (found.transaction + COMMIT_MS),
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
        yield f"| {name} | {_line(Fleet(costs_of(found), case).run(), rate * case.seconds)} |"


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
