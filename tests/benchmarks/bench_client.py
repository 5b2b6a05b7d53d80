"""What the SDK adds to encryption, network and decryption, in pairs of queries; single and bulk embeddings a second.

Usage: python -m tests.benchmarks.bench_client [queries] [rows]

The silo has a random head, d=768 and C=4, and runs on this machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from sealign.ckks import Cipher, SecretKey
from sealign.encoders.encoder import Embeddings
from sealign.protocol.conversions.types import matrix_to_wire, product_from_wire, public_key_to_wire, rows_to_wire
from sealign.protocol.v1 import classification_pb2 as pb
from sealign.protocol.v1.classification_pb2_grpc import ClassificationStub
from sealign_client import Client
from tests.benchmarks.bench_service import FixedEncoder, given_embeddings, make_silo, unit_rows
from tests.support.processes import Server, command, serving
from tests.support.views import installed_family

Floats = NDArray[np.float64]

CALLERS = 32
_WARM = 50


class Bare:
    """One query after another by nothing but gRPC's asyncio stubs and a cipher: what the SDK stands on."""

    def __init__(self, client: Client, port: int, ca: bytes) -> None:
        ready = client._wait(client._client.classifier._ready(None))
        self._plan = next(plan for plan in ready.card.plans if plan.rows == 1)
        self._cipher = Cipher(self._plan, SecretKey.generate(self._plan.parameters))
        self._card, self._kind = ready.card, ready.route.kind
        self._loop = asyncio.new_event_loop()
        self._channel: Any = self._loop.run_until_complete(self._connected(port, ca))
        self._stub: Any = ClassificationStub(self._channel)
        self.ask(unit_rows(1), key=True)

    async def _connected(self, port: int, ca: bytes) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(ca))

    def ask(self, rows: Embeddings, *, key: bool = False) -> Floats:
        """Return the outputs of one row."""
        return self._loop.run_until_complete(self._asked(rows, key))

    async def _asked(self, rows: Embeddings, key: bool) -> Floats:
        request = pb.ClassifyRequest(
            task=self._card.name,
            rows=rows_to_wire(self._kind),
            query=matrix_to_wire(self._cipher.encrypt(rows)),
            revision=self._card.revision,
            key=public_key_to_wire(self._cipher.key.public_key) if key else None,
        )
        reply = await self._stub.Classify(request, timeout=60)
        return self._cipher.decrypt(product_from_wire(reply.logits, self._plan.counts[0] * self._plan.counts[2]), 1)

    def close(self) -> None:
        self._loop.run_until_complete(self._channel.close())
        self._loop.close()


def overhead(client: Client, bare: Bare, queries: int) -> None:
    """Print what the SDK adds to encrypt, network and decrypt: pairs of queries, one of each kind."""
    rows = unit_rows(256)
    wall, cpu = np.zeros((queries, 2)), np.zeros(2)
    asks: tuple[Callable[[Embeddings], Floats], ...] = (bare.ask, client.logits)
    for number in range(-_WARM, queries):
        row = rows[number % len(rows)][None]
        for kind, ask in enumerate(asks):
            started, before = perf_counter(), process_time()
            ask(row)
            if number >= 0:
                wall[number, kind] = perf_counter() - started
                cpu[kind] += process_time() - before
    (bare_ms, sdk_ms), difference = np.median(wall, axis=0) * 1e3, np.median(wall[:, 1] - wall[:, 0]) * 1e3
    print(f"one query: encrypt + network + decrypt {bare_ms:.2f} ms, SDK {sdk_ms:.2f} ms")
    print(f"  SDK adds {difference:.2f} ms, median of pairs (target 0.5); CPU {np.diff(cpu)[0] / queries * 1e3:.2f} ms")
    started = perf_counter()
    for number in range(queries):
        client.logits(rows[number % len(rows)][None])
    print(f"  single embeddings, one caller: {queries / (perf_counter() - started):.0f}/s (target 250)")

    def many(number: int) -> None:
        for _ in range(queries // CALLERS + 1):
            client.logits(rows[number][None])

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(many, range(CALLERS)))
        started = perf_counter()
        list(pool.map(many, range(CALLERS)))
    rate = (queries // CALLERS + 1) * CALLERS / (perf_counter() - started)
    print(f"  single embeddings, {CALLERS} callers: {rate:.0f}/s")


def bulk(client: Client, count: int) -> None:
    """Print rows a second of embeddings given in one call."""
    rows = unit_rows(count)
    client.logits(rows[:1024])
    started, before = perf_counter(), process_time()
    client.logits(rows)
    seconds, cpu = perf_counter() - started, process_time() - before
    print(f"{count} rows in one call: {count / seconds:.0f} rows/s (target 2,500)")
    print(f"  client's CPU {cpu / count * 1e6:.0f} µs a row")


def file_of_rows(work: Path, port: int, ca: Path, count: int) -> None:
    """Print rows a second of a file of embeddings, by the command, its start included."""
    np.save(work / "rows.npy", unit_rows(count))
    path = installed_family(work, "benchmark", given_embeddings)
    options = ("--silo", f"localhost:{port}", "--tls-ca", ca, "--encoder", "benchmark:", "--output", work / "out.csv")
    started = perf_counter()
    ran = command("sealign", "classify", *options, "--file", work / "rows.npy", PYTHONPATH=path)
    seconds = perf_counter() - started
    assert ran.returncode == 0, ran.stderr
    assert (work / "out.csv").read_text().count("\n") == count + 1
    print(f"{count} rows in a file: {count / seconds:.0f} rows/s with the start of the command (target 2,500)")


@contextmanager
def embedding_silo(work: Path) -> Iterator[tuple[Server, Path]]:
    """A silo for embeddings that are given."""
    make_silo(work / "silo")
    assert command("sealign-server", "certificates", work / "tls", "--host", "localhost").returncode == 0
    tls = ("--tls-cert", work / "tls" / "silo.pem", "--tls-key", work / "tls" / "silo.key")
    with serving("sealign-server", "serve", work / "silo", "--listen", "127.0.0.1:0", *tls, log=work / "log") as silo:
        yield silo, work / "tls" / "ca.pem"


def main(queries: int, rows: int) -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with (
        tempfile.TemporaryDirectory() as scratch,
        embedding_silo(Path(scratch)) as (silo, ca),
        Client(silo=f"localhost:{silo.port}", tls_ca=ca, encoder=FixedEncoder()) as client,
    ):
        bare = Bare(client, silo.port, ca.read_bytes())
        overhead(client, bare, queries)
        bare.close()
        bulk(client, rows)
        file_of_rows(Path(scratch), silo.port, ca, rows)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:3]]
    main(*given, *(2_000, 20_000)[len(given) :])
