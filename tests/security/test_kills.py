"""Processes that count and record, killed at any moment: nothing is granted twice, and nothing answered is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sealign_server.ledger import Ledger, Usage
from sealign_server.store import audit_records, verify_audit

LIFETIME, AHEAD, KILLS = 3000, 256, 25

# Forks, so that the moments of death are spread over the work and not over the start of an interpreter.
_KILLED = """
import asyncio, json, os, random, signal, sys, time
from pathlib import Path
from sealign.errors import BudgetExhaustedError
from sealign_server.access import Allowance, RowAccounts
from sealign_server.ledger import Budget, Ledger, Usage, UsageKey
from sealign_server.store import AuditTrail

directory, kills, lifetime = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
key = UsageKey("CN=a", "topics", "c" * 64)


async def serve(answered):
    allowance = Allowance(10, Budget(lifetime=lifetime))
    accounts = RowAccounts(Usage(Ledger(directory / "ledger.sqlite")), lambda _: allowance)
    trail = AuditTrail(directory / "audit", 20_000)
    while True:
        await accounts.spend(key, 1)
        trail.append("query", "CN=a", {"rows": 1})
        os.write(answered, b".")


random.seed(1)
read, answered = os.pipe()
children, began, total = set(), time.monotonic(), 0
for number in range(kills):
    for _ in range(2 - len(children)):  # two at a time
        child = os.fork()
        if not child:
            os.setsid()
            try:
                asyncio.run(serve(answered))
            except BudgetExhaustedError:
                time.sleep(60)
        children.add(child)
    if not number:
        total += len(os.read(read, 1))  # this machine needs so long for the first
        took = time.monotonic() - began
    time.sleep(took * random.uniform(0.1, 2))
    victim = children.pop()
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
os.close(answered)
while piece := os.read(read, 65536):
    total += len(piece)
print(json.dumps(total))
"""


@pytest.mark.parametrize("lifetime", [LIFETIME, 10**6])
def test_a_budget_and_the_chain_survive_every_death(tmp_path: Path, lifetime: int) -> None:
    arguments = [sys.executable, "-c", _KILLED, str(tmp_path), str(KILLS), str(lifetime)]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    answered = json.loads(ran.stdout)
    assert answered > 0
    (spent,) = Usage(Ledger(tmp_path / "ledger.sqlite")).spent()
    verified = verify_audit(tmp_path / "audit")
    recorded = sum(record.kind == "query" for record in audit_records(tmp_path / "audit"))
    print(f"{KILLS} kills: {answered} answered, {recorded} recorded, {spent.lifetime} counted of {lifetime}")
    assert verified.records >= recorded
    assert answered <= recorded <= spent.lifetime <= lifetime
    assert recorded - answered <= KILLS + 2
    assert spent.lifetime - recorded <= (KILLS + 2) * AHEAD
