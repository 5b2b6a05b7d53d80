"""Processes that write budgets, records, maps and releases, and are killed at any moment; and what must hold then.

``python -m tests.load.killed_writers KIND DIRECTORY KILLS LIMIT`` prints how much was answered before its writer died.
It forks, so that the moments of death are spread over the work and not over the start of an interpreter.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from sealign.alignment import AffineMap, MapQuality
from sealign.ckks import EncryptedProduct, ReplyCiphertext, SecurityTable, candidates, product_shape
from sealign.errors import BudgetExhaustedError, ReleaseRefusedError
from sealign.protocol import CrossCovariancePart
from sealign_server.access import Allowance, RowAccounts
from sealign_server.ledger import Budget, Ledger, Release, Releases, Usage, UsageKey
from sealign_server.store import (
    SESSION_BYTES,
    AuditTrail,
    SiloStore,
    Undelivered,
    audit_records,
    verify_audit,
)
from tests.support.processes import environment
from tests.support.smallsilo import CLIENT_DIMENSION, SILO_DIMENSION, make_silo

AHEAD = 256
"""Rows that a writer counts ahead at most."""
AT_ONCE = 2
"""Writers that run at a time."""
RETAINED = 4
"""Maps of one identity."""
KINDS = ("budget", "map", "release")

_KEY = UsageKey("CN=a", "topics", "c" * 64)
_ABOUT: dict[str, str | int] = {"space": "embeddings", "public_set": "d" * 64, "encoder": "c" * 64}
_SEGMENT = 20_000


@dataclass(frozen=True)
class Survived:
    """What was left after all writers had died.

    Attributes:
        answered: what the writers had said to be done.
        recorded: in the audit trail.
        counted: in the ledger, or files for maps.
    """

    kills: int
    answered: int
    recorded: int
    counted: int


def killed(kind: str, directory: Path, kills: int, limit: int) -> Survived:
    """Kill writers of a kind so many times, and check what is left.

    Args:
        kind: one of KINDS.
        directory: empty; a silo is made there.
        kills: number of deaths.
        limit: rows or releases that may be granted in all.
    """
    store = make_silo(directory / "silo")
    command = [sys.executable, "-m", "tests.load.killed_writers", kind, str(directory), str(kills), str(limit)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60 + 2 * kills)
    assert ran.returncode == 0, ran.stderr
    answered = json.loads(ran.stdout.splitlines()[-1])
    verified = verify_audit(store.audit_path, store.signing.known())
    recorded = sum(record.kind == kind for record in audit_records(store.audit_path))
    assert verified.records >= recorded
    counted = {"budget": _rows, "map": _maps, "release": _releases}[kind](store)
    survived = Survived(kills, answered, recorded, counted)
    assert answered > 0, survived
    if kind == "map":
        assert answered <= recorded, survived
    else:
        assert answered <= recorded <= counted <= limit, survived
        ahead = AHEAD if kind == "budget" else 1
        assert counted - recorded <= (kills + AT_ONCE) * ahead, survived
    assert recorded - answered <= kills + AT_ONCE, survived
    return survived


def _rows(store: SiloStore) -> int:
    (spent,) = Usage(Ledger(store.ledger_path)).spent()
    return spent.lifetime


def _maps(store: SiloStore) -> int:
    """Every map that is listed can be read; the newest is there."""
    records = store.space.map_records()
    for record in records:
        store.space.load_map(record.identity, record.card.id)
    assert records
    assert len(records) <= AT_ONCE * (RETAINED + 1)
    return len(records)


def _releases(store: SiloStore) -> int:
    """Each session was counted once; what was kept for its client is whole."""
    found = Releases(Ledger(store.ledger_path), 1).all()
    for path in store.space.undelivered._files():
        name = bytes.fromhex(path.stem)
        assert store.space.undelivered.find(name, "CN=a", _ABOUT, SecurityTable.CLASSICAL) is not None
    return len(found)


async def _spend(store: SiloStore, limit: int, done: Callable[[], None]) -> None:
    allowance = Allowance(10, Budget(lifetime=limit))
    accounts = RowAccounts(Usage(Ledger(store.ledger_path)), lambda _: allowance)
    trail = AuditTrail(store.audit_path, store.signing, _SEGMENT)
    while True:
        await accounts.spend(_KEY, 1)
        trail.append("budget", "CN=a", {"rows": 1})
        done()


async def _learn(store: SiloStore, limit: int, done: Callable[[], None]) -> None:
    trail, rng, identity = (
        AuditTrail(store.audit_path, store.signing, _SEGMENT),
        np.random.default_rng(os.getpid()),
        f"CN={limit % 2}",
    )
    for number in count():
        weight = rng.normal(size=(CLIENT_DIMENSION, SILO_DIMENSION))
        target = store.document.encoder_card.fingerprint
        quality = MapQuality(rows=100, penalty=0.1, explained_variance=0.5, mean_cosine=0.5, linear_cka=0.5)
        learned = AffineMap(
            weight, weight[0], "c" * 64, target, "d" * 64, quality, f"2026-01-01T00:00:{number % 60:02}"
        )
        trail.append("map", identity, {"number": number})
        store.space.save_map(identity, learned, 1.0, None)
        store.space.evict_maps(identity, RETAINED)
        done()


async def _release(store: SiloStore, limit: int, done: Callable[[], None]) -> None:
    releases = Releases(Ledger(store.ledger_path), limit)
    trail = AuditTrail(store.audit_path, store.signing, _SEGMENT)
    plan = candidates(product_shape(np.ones((8, 3)), np.zeros(3), rows=4), SecurityTable.CLASSICAL)[0]
    while True:
        session = os.urandom(SESSION_BYTES)
        product = EncryptedProduct(plan.id, b"k" * 32, (ReplyCiphertext(b"outputs", b"mask"),) * 2)
        kept = Undelivered(session, "CN=a", _ABOUT, plan, (CrossCovariancePart(0, product, 2.5),))
        store.space.undelivered.keep(kept)
        release = Release("embeddings", "d" * 64, "c" * 64, "CN=a", rows=10**9, dimension=1)
        assert releases.record(release, session.hex())
        assert not releases.record(release, session.hex())  # sent again, it counts once
        trail.append("release", "CN=a", {"session": session.hex()})
        done()


_WORK: dict[str, Callable[[SiloStore, int, Callable[[], None]], Awaitable[None]]] = {
    "budget": _spend,
    "map": _learn,
    "release": _release,
}


def _child(kind: str, directory: Path, limit: int, answered: int) -> None:
    os.setsid()
    try:
        asyncio.run(_WORK[kind](SiloStore(directory / "silo"), limit, lambda: _say(answered)))  # type: ignore[arg-type]
    except (BudgetExhaustedError, ReleaseRefusedError):
        time.sleep(600)


def _say(answered: int) -> None:
    os.write(answered, b".")


def main(kind: str, directory: Path, kills: int, limit: int) -> int:
    """Keep two writers running, kill one after a random time, again and again; return what they answered."""
    random.seed(1)
    read, answered = os.pipe()
    children: set[int] = set()
    began, took, total = time.monotonic(), 0.0, 0
    for number in range(kills):
        while len(children) < AT_ONCE:
            child = os.fork()
            if not child:
                _child(kind, directory, limit, answered)
                os._exit(1)
            children.add(child)
        if not number:
            total += len(os.read(read, 1))  # this machine needs so long for the first
            took = time.monotonic() - began
        time.sleep(min(took, 0.5) * random.uniform(0.1, 2))
        os.set_blocking(read, False)
        total += _drained(read)
        os.set_blocking(read, True)
        victim = children.pop()
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(answered)
    return total + _drained(read)


def _drained(read: int) -> int:
    total = 0
    try:
        while piece := os.read(read, 65536):
            total += len(piece)
    except BlockingIOError:
        pass
    return total


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
