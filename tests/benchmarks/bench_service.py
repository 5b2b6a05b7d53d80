"""A real silo over TLS on loopback, d=768 and C=4, without embedding: latency, memory, bulk rows a second.

Usage: python -m tests.benchmarks.bench_service [queries]

The silo holds a random head and the identity as map, so that no model is needed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil  # type: ignore[import-untyped]

from sealign.alignment import AffineMap, MapQuality
from sealign.ckks import DEFAULT_PRECISION
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.encoders.encoder import Embeddings
from sealign.heads import LinearHead, calibrate
from sealign_client import Client, Timing
from sealign_server.store import OPERATOR, SiloDocument, SiloStore, StoredTask
from tests.support.processes import Server, command, serving

DIMENSION, CLASSES, BULK_ROWS = 768, 4, 4096


class FixedEncoder:
    """Stands for an encoder whose embeddings exist already."""

    card = EncoderCard(name="benchmark", dimension=DIMENSION, fingerprint="0" * 64)

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        raise NotImplementedError("the benchmark brings its own embeddings")


def given_embeddings(_: EncoderSettings) -> FixedEncoder:
    """For the entry point that stands for an encoder."""
    return FixedEncoder()


def make_silo(directory: Path) -> LinearHead:
    generator = np.random.default_rng(0)
    labels = tuple(f"class {number}" for number in range(CLASSES))
    head = LinearHead(generator.standard_normal((DIMENSION, CLASSES)) / 5, generator.standard_normal(CLASSES), labels)
    card = EncoderCard(name="benchmark", dimension=DIMENSION, fingerprint="1" * 64)
    store = SiloStore.create(directory, SiloDocument(name="benchmark", encoder=EncoderSettings(), encoder_card=card))
    rows = unit_rows(64)
    trained = calibrate(head, rows, [labels[i] for i in head.logits(rows).argmax(axis=1)])
    store.tasks.save("benchmark", StoredTask(trained))
    identity = AffineMap(
        weight=np.eye(DIMENSION),
        intercept=np.zeros(DIMENSION),
        source_fingerprint=FixedEncoder.card.fingerprint,
        target_fingerprint=card.fingerprint,
        public_set="2" * 64,
        quality=MapQuality(explained_variance=1.0, mean_cosine=1.0, linear_cka=1.0, rows=64, penalty=1.0),
        created="2026-01-01T00:00:00+00:00",
    )
    store.space.save_map(OPERATOR, identity, 1.0, None)
    return trained.head


def unit_rows(count: int) -> Embeddings:
    rows = np.random.default_rng(count).standard_normal((count, DIMENSION))
    normalised: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return normalised


def cpu_seconds(silo: Server) -> float:
    """CPU that the silo's process and its workers have taken so far, all of their threads together."""
    process = psutil.Process(silo.process.pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def main(queries: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        head = make_silo(work / "silo")
        assert command("sealign-server", "certificates", work / "tls", "--host", "localhost").returncode == 0
        tls = ("--tls-cert", work / "tls" / "silo.pem", "--tls-key", work / "tls" / "silo.key")
        arguments = ("serve", work / "silo", "--listen", "127.0.0.1:0", *tls)
        timings: list[Timing] = []
        with serving("sealign-server", *arguments, log=work / "silo.log") as silo:
            ca = work / "tls" / "ca.pem"
            silo_address = f"localhost:{silo.port}"
            with Client(silo=silo_address, tls_ca=ca, encoder=FixedEncoder(), observe=timings.append) as client:
                measure(client, head, queries, timings, silo)


def measure(client: Client, head: LinearHead, queries: int, timings: list[Timing], silo: Server) -> None:
    rows = unit_rows(256)
    for row in rows[:100]:
        client.logits(row[None])
    timings.clear()
    before, error = silo.resident_bytes, 0.0
    cpu, started = cpu_seconds(silo), perf_counter()
    for number in range(queries):
        row = rows[number % len(rows)][None]
        error = max(error, float(np.abs(client.logits(row) - head.logits(row)).max()))
    seconds, cpu = perf_counter() - started, cpu_seconds(silo) - cpu
    moved = (silo.resident_bytes - before) / 1e6
    print(
        f"{queries} single queries, d={DIMENSION} C={CLASSES}, over gRPC and TLS on loopback ({os.cpu_count()} cores)"
    )
    for stage in ("encrypt", "server", "decrypt", "round_trip"):
        p5, p50, p95 = np.percentile([getattr(timing, stage) for timing in timings], (5, 50, 95))
        print(f"  {stage:10s} p5 {p5:6.2f} ms   p50 {p50:6.2f} ms   p95 {p95:6.2f} ms")
    print(f"  silo's CPU {cpu / queries * 1e3:.2f} ms a query, encryptions of zero and gRPC included")
    print(f"  one client {queries / seconds:.0f} queries/s")
    print(f"  bytes      request {timings[0].request_bytes}, reply {timings[0].reply_bytes}")
    print(f"  largest error of a logit {error:.5f} (promised {DEFAULT_PRECISION:.5f})")
    print(f"  the silo's resident size moved by {moved:+.1f} MB")
    bulk = unit_rows(BULK_ROWS)
    client.logits(bulk[:1024])
    started = perf_counter()
    logits = client.logits(bulk)
    seconds = perf_counter() - started
    wrong = float(np.abs(logits - head.logits(bulk)).max())
    print(
        f"{BULK_ROWS} rows in one call: {seconds:.2f} s end to end, {BULK_ROWS / seconds:.0f} rows/s, error {wrong:.5f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
