"""What stands before a query costs: ``python -m tests.benchmarks.bench_guards``.

Prints microseconds of processor time per query, in one process, for each layer that a query passes and for what it
counts and records. The ledger is a SQLite file and the audit trail a directory, on the disk that holds temporary files.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from sealign.app.ending import Ending
from sealign.app.frame import Call, Layer

QUERIES = 5000


class _Context:
    """What gRPC says of a caller."""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def peer(self) -> str:
        return "ipv4:192.0.2.1:5000"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("user-agent", "grpc"),)


def call_of(layers: tuple[Layer, ...]) -> Call:
    """A call that passes layers."""
    return Call("Classify", "0123456789abcdef", _Context(), 300.0, identity="CN=client,O=acme", layers=layers)


async def micros(work: Callable[[], Awaitable[object]]) -> float:
    """Return processor time per query."""
    await work()
    started = time.process_time()
    for _ in range(QUERIES):
        await work()
    return (time.process_time() - started) / QUERIES * 1e6


async def measured(directory: Path) -> dict[str, float]:
    """Return microseconds by what is measured."""
    from sealign.protocol.v1.classification_pb2 import ClassifyRequest
    from sealign_server.access import Allowance, AuditLayer, Identities, Policies, Policy, RowAccounts
    from sealign_server.ledger import Budget, IdentityRegister, Ledger, Usage, UsageKey
    from sealign_server.observe import Metrics, MetricsLayer
    from sealign_server.rpc.layers import IdentityLayer, PolicyLayer
    from sealign_server.store import AuditTrail, SigningKeys

    ledger = Ledger(directory / "ledger.sqlite")
    identities = Identities(IdentityRegister(ledger), accepts_tokens=True, allows_anonymous=True)
    identities.refresh()
    audit = AuditLayer(AuditTrail(directory / "audit", SigningKeys(directory / "signing" / "keys.json")))
    policies = Policies(directory / "policy.toml", Policy.built_in(None))
    accounts = RowAccounts(Usage(ledger), lambda _: Allowance(1024, Budget(10**9, 10**9, 10**9)))
    key, request = UsageKey("CN=client,O=acme", "topics", "c" * 64), ClassifyRequest(task="topics")

    def passing(layer: Layer) -> Callable[[], Awaitable[object]]:
        call = call_of((layer,))

        async def passed() -> None:
            layer.on_begin(call)
            layer.on_request(call, request)
            for stage in ("parse", "budget", "wait", "product"):
                layer.on_stage(call, stage, 0.001)
            layer.on_end(call, Ending())

        return passed

    facts: dict[str, str | int | float] = {"task": "topics", "encoder": "c" * 64, "rows": 1}
    known = call_of(())

    async def recorded() -> None:
        audit.on_record(known, "query", facts)

    return {
        "identity": await micros(passing(IdentityLayer(identities))),
        "policy": await micros(passing(PolicyLayer(policies, lambda _space, _set: None))),
        "budget, 1 transaction for 256 rows": await micros(lambda: accounts.spend(key, 1)),
        "audit record": await micros(recorded),
        "metrics, 4 stages": await micros(passing(MetricsLayer(Metrics()))),
    }


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # before prometheus_client is imported
        found = asyncio.run(measured(Path(directory)))
    print("| what | µs per query |\n|---|---|")
    for name, value in {**found, "all": sum(found.values())}.items():
        print(f"| {name} | {value:.0f} |")


if __name__ == "__main__":
    main()
