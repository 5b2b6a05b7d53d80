"""Encrypted tokens a second and bytes a token over TLS on loopback, for vocabularies of three sizes.

Usage: python -m tests.benchmarks.bench_generation [small | medium | large] …

Heads are random, of the norms of real ones, and so are the client's states: the figures are those of ciphertexts and
wire, one client and one silo on the same cores. The client's own model comes on top (`sealign generate --dry-run`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, MapQuality
from sealign.ckks import Cipher, SecretKey, residue_bytes
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.generation.vocabulary import VocabularyHead
from sealign.protocol import PublicSetCard, RowKind
from sealign_client.endpoint import Endpoint
from sealign_client.local.silo_keys import SiloKeys, SiloTrust
from sealign_client.transport import GenerationCalls, Query, SiloConnection, credentials_of
from sealign_server.store import OPERATOR, PublicRows, SiloDocument, SiloStore
from sealign_server.store.generation import ModelHead
from tests.support.processes import Server, command, serving

TASK = "text"
_ROW_NORM, _COLUMN_NORM = 50.0, 2.5


@dataclass(frozen=True)
class Size:
    """A head, and what is to be reached: seconds and bytes of a token."""

    vocabulary: int
    dimension: int
    seconds: float
    megabytes: float
    tokens: int


SIZES = {
    "small": Size(4_096, 256, 0.1, 1.5, 60),
    "medium": Size(32_000, 768, 1.5, float("inf"), 10),
    "large": Size(152_000, 896, 6.0, 25.0, 4),
}
MODEL = EncoderCard(name="client", dimension=1, fingerprint="c" * 64, normalised=False)


def make_silo(directory: Path, size: Size) -> tuple[VocabularyHead, RowKind]:
    """A silo with a random head, and the identity as the operator's map."""
    generator = np.random.default_rng(0)
    card = EncoderCard(name="random", dimension=size.dimension, fingerprint="5" * 64, normalised=False)
    document = SiloDocument(name="benchmark", encoder=EncoderSettings(), encoder_card=card)
    silo = SiloStore.create(directory, document)
    weight = generator.standard_normal((size.vocabulary, size.dimension), dtype=np.float32)
    weight *= np.float32(_COLUMN_NORM / np.sqrt(size.dimension))
    silo.generation.create(TASK, ModelHead(EncoderSettings(), card, weight, None, b"{}"), "")
    space, rows = silo.generation.space(TASK), states_like(0, 512, size.dimension)
    space.save_public_set(PublicRows(PublicSetCard("2" * 64, len(rows), "random"), rows.astype(np.float32)))
    identity = AffineMap(
        weight=np.eye(size.dimension),
        intercept=np.zeros(size.dimension),
        source_fingerprint=MODEL.fingerprint,
        target_fingerprint=card.fingerprint,
        public_set="2" * 64,
        quality=MapQuality(explained_variance=1.0, mean_cosine=1.0, linear_cka=1.0, rows=64, penalty=1.0),
        created="2026-01-01T00:00:00+00:00",
    )
    space.save_map(OPERATOR, identity, _ROW_NORM, rows.astype(np.float16))
    return silo.generation.load_head(TASK), RowKind(MODEL.fingerprint, identity.id)


def states_like(seed: int, rows: int, dimension: int) -> NDArray[np.float64]:
    """Random states, (rows, dimension), a tenth within the largest norm."""
    made = np.random.default_rng(seed).standard_normal((rows, dimension))
    scaled: NDArray[np.float64] = made * (0.9 * _ROW_NORM / np.linalg.norm(made, axis=1, keepdims=True))
    return scaled


async def measure(name: str, silo: Server, authority: Path, head: VocabularyHead, kind: RowKind) -> None:
    """Ask for tokens one after the other, and print a row."""
    size, endpoint = SIZES[name], Endpoint(f"localhost:{silo.port}", authority)
    trust = SiloTrust(endpoint.address, SiloKeys(authority.parent / "maps"), None)
    connection = SiloConnection(endpoint, credentials_of(endpoint), trust)
    calls = GenerationCalls(connection)
    started = perf_counter()
    card = await calls.task(TASK, kind)
    encoded = perf_counter() - started
    plan = card.plan
    assert plan is not None
    cipher = Cipher(plan, SecretKey.generate(plan.parameters))
    times, error, sent, received, server = list[float](), 0.0, 0, 0, 0.0
    for row in states_like(1, size.tokens + 1, size.dimension)[:, None]:
        started = perf_counter()
        matrix = cipher.encrypt(row)
        query = Query(TASK, card.revision, kind, matrix, None if times else cipher.key.public_key)
        parts: list[NDArray[np.float64]] = []
        received = 0
        async for reply in calls.next_token(query, plan, timeout=600.0):
            parts.append(cipher.decrypt_part(reply.product, reply.first_block))
            received += reply.product.byte_count
            server = reply.server_ms
        times.append(perf_counter() - started)
        error = max(error, float(np.abs(np.concatenate(parts, axis=1) - head.logits(row)).max()))
        sent = matrix.byte_count
    seconds = float(np.median(times[1:]))
    total = (sent + received) / 1e6
    met = seconds <= size.seconds and total <= size.megabytes
    print(
        f"{name:7s} V={size.vocabulary:<7d} d={size.dimension:<4d} {plan.parameters.name:13s} {seconds * 1e3:7.0f} ms "
        f"(silo {server:6.0f})  {1 / seconds:5.1f} tokens/s  {sent / 1e6:5.2f} + {received / 1e6:5.2f} MB  "
        f"{residue_bytes(plan)} bytes a weight  range {plan.range:g}  error {error:.4f} of {plan.precision:.4f}  "
        f"encoded in {encoded:.0f} s  silo {silo.resident_bytes / 1e6:5.0f} MB  "
        f"targets {size.seconds} s, {size.megabytes} MB: {'met' if met else 'MISSED'}",
        flush=True,
    )
    await connection.close()


def main(names: list[str]) -> None:
    print(f"one token, one client, over gRPC and TLS on loopback ({os.cpu_count()} cores)")
    for name in names or list(SIZES):
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            head, kind = make_silo(work / "silo", SIZES[name])
            assert command("sealign-server", "certificates", work / "tls", "--host", "localhost").returncode == 0
            tls = ("--tls-cert", work / "tls" / "silo.pem", "--tls-key", work / "tls" / "silo.key")
            arguments = ("serve", work / "silo", "--listen", "127.0.0.1:0", *tls)
            with serving("sealign-server", *arguments, log=work / "silo.log") as silo:
                asyncio.run(measure(name, silo, work / "tls" / "ca.pem", head, kind))


if __name__ == "__main__":
    main(sys.argv[1:])
