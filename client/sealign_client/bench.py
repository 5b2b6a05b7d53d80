"""Sealign's encrypted product against TenSEAL's `mm`, measured in one run on one machine.

Both systems compute the same logits: an affine map from the client's embedding space to the silo's
(d×512, the dimension of Google USE), then a head (512×C). Sealign composes the two into one product, as a
silo does when it serves; TenSEAL applies them one after the other with its own `mm`. Errors are
against NumPy in float64. Everything timed runs on one thread: SEAL and NumPy's FFT have no other, no
BLAS routine is called in a timed section, and TenSEAL's contexts are made with ``n_threads=1``.

Times are medians of whole operations, from floats to wire bytes and back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import tenseal
from numpy.typing import NDArray
from rich.table import Table

from sealign import ckks
from sealign.files import write_atomically
from sealign_client.plan_table import TYPICAL_CLASS_NORM, short

Matrix = NDArray[np.float64]
Progress = Callable[[str], None]
T = TypeVar("T")

SEALIGN = "sealign"
UNPREPARED = "sealign (no zeros prepared)"
TENSEAL = "tenseal mm"

MAP_OUTPUTS = 512
"""Dimension of the silo's embeddings in TenSEAL's map."""
ROWS_PER_REQUEST = 1024
"""Largest batch of one request in a bulk measurement."""
TENSEAL_BUDGET_S = 6.0
"""A TenSEAL operation is repeated while the repetitions fit into this time; it is done once in any case."""
TENSEAL_LIMIT_S = 240.0
"""A TenSEAL map that would take longer is left out of the results, and said to be."""
_PROBE_ROWS = 64


@dataclass(frozen=True)
class BenchRow:
    """One measurement; times, bytes of requests and bytes of replies are for the whole batch."""

    system: str
    dim: int
    classes: int
    batch: int
    encrypt_ms: float
    server_ms: float
    decrypt_ms: float
    request_bytes: int
    reply_bytes: int
    key_bytes: int
    max_abs_error: float


@dataclass(frozen=True)
class Workload:
    """Unit-norm embeddings X (B, d), a map (d, 512), a head (512, C), and the bias of both together (C,)."""

    X: Matrix
    map: Matrix
    head: Matrix
    bias: Matrix

    @classmethod
    def random(cls, rows: int, dim: int, classes: int) -> Workload:
        """A workload whose composed weights have the norm of a typical head, 5·sqrt(C).

        Always the same; queries and map do not depend on the number of classes.
        """
        generator = np.random.default_rng((rows, dim))
        X = generator.standard_normal((rows, dim))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        affine = generator.standard_normal((dim, MAP_OUTPUTS)) / np.sqrt(dim)
        head, bias = generator.standard_normal((MAP_OUTPUTS, classes)), generator.standard_normal(classes)
        head *= TYPICAL_CLASS_NORM * np.sqrt(classes) / np.linalg.norm(affine @ head)
        return cls(X, affine, head, bias)

    def error(self, Y: NDArray[np.floating]) -> float:
        """Largest absolute difference of logits Y, shape (B, C), from the clear computation."""
        return float(np.abs(Y - (self.X @ self.map @ self.head + self.bias)).max())


def _timed(operation: Callable[[], T]) -> tuple[T, float]:
    """The operation's result and its time in milliseconds."""
    start = time.perf_counter()
    result = operation()
    return result, (time.perf_counter() - start) * 1e3


def _each(operations: Sequence[Callable[[], T]], before: Callable[[], None] | None = None) -> tuple[list[T], float]:
    """Results of the operations and their median time; ``before`` is called before each and not timed."""
    results, durations = [], []
    for operation in operations:
        if before is not None:
            before()
        result, duration = _timed(operation)
        results.append(result)
        durations.append(duration)
    return results, median(durations)


def _repeated(operation: Callable[[], T], budget_s: float) -> tuple[T, float]:
    """The operation's last result and its median time, over one repetition and what else fits the budget."""
    result, duration = _timed(operation)
    durations = [duration]
    while sum(durations) + duration < budget_s * 1e3:
        result, duration = _timed(operation)
        durations.append(duration)
    return result, median(durations)


class _SealignBench:
    """One workload through the encrypted product, in requests of at most 1,024 rows."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        weight = work.map @ work.head
        self.plan = ckks.plan_product(ckks.product_shape(weight, work.bias, rows=min(len(work.X), ROWS_PER_REQUEST)))
        self.key = ckks.SecretKey.generate(self.plan.parameters)
        self._cipher = ckks.Cipher(self.plan, self.key)
        self._evaluator = ckks.Evaluator(self.plan, weight, work.bias)
        self._batches = [work.X[start : start + self.plan.rows] for start in range(0, len(work.X), self.plan.rows)]
        self._pool = ckks.ZeroPool(self.key.public_key, capacity=len(self._batches) * self.plan.cost.replies)

    def encrypt(self) -> list[ckks.EncryptedMatrix]:
        return [self._cipher.encrypt(batch) for batch in self._batches]

    def serve(self, queries: list[ckks.EncryptedMatrix]) -> list[ckks.EncryptedProduct]:
        return [self._evaluator.evaluate(query, self._pool) for query in queries]

    def decrypt(self, replies: list[ckks.EncryptedProduct]) -> Matrix:
        pairs = zip(replies, self._batches, strict=True)
        return np.vstack([self._cipher.decrypt(reply, len(batch)) for reply, batch in pairs])

    def row(self, system: str, repetitions: int, *, prepared: bool) -> BenchRow:
        # Stage after stage, since client and silo are different processes: neither cools the other's caches.
        queries, encrypt_ms = _each([self.encrypt] * repetitions)
        replies, server_ms = _each([partial(self.serve, query) for query in queries], self._fill if prepared else None)
        logits, decrypt_ms = _each([partial(self.decrypt, reply) for reply in replies])
        return BenchRow(
            system, self.plan.dimension, self.plan.outputs, len(self.work.X), encrypt_ms, server_ms, decrypt_ms,
            sum(query.byte_count for query in queries[0]), sum(reply.byte_count for reply in replies[0]),
            self.key.public_key.byte_count, max(map(self.work.error, logits)),
        )  # fmt: skip

    def _fill(self) -> None:
        while not self._pool.is_full:
            self._pool.prepare()


def sealign_rows(work: Workload, repetitions: int) -> list[BenchRow]:
    """Sealign with encryptions of zero prepared ahead of the queries, and without."""
    bench = _SealignBench(work)
    return [bench.row(SEALIGN, repetitions, prepared=True), bench.row(UNPREPARED, repetitions, prepared=False)]


class TensealBench:
    """TenSEAL's high-level interface at N=8192, primes of 60, 40, 40 and 60 bits, scale 2^40, one thread.

    Args:
        budget_s: each operation is repeated while the repetitions fit into this time.
        limit_s: a map that would take longer is left out.
    """

    def __init__(self, budget_s: float = TENSEAL_BUDGET_S, limit_s: float = TENSEAL_LIMIT_S) -> None:
        self.budget_s = budget_s
        self.limit_s = limit_s
        self._client = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60], n_threads=1
        )
        self._client.global_scale = 2.0**40
        self._client.generate_galois_keys()
        public = self._client.serialize(save_secret_key=False)
        self._server = tenseal.context_from(public, n_threads=1)
        self._key_bytes = len(public)

    def rows(self, works: Sequence[Workload], progress: Progress) -> list[BenchRow]:
        """One row for each head; the workloads hold one and the same query and map.

        The product with the map is the same operation whatever the head is: it is timed once, and its
        time is part of every row's server time. The map's bias is added together with the head's: after
        TenSEAL has added a plain vector, a second `mm` gives wrong values.
        """
        query, affine = works[0].X[0], works[0].map
        predicted_s = self._predicted_s(query, affine)
        if predicted_s > self.limit_s:
            progress(
                f"{TENSEAL}: d={query.size} left out: its map alone would take about {predicted_s:.0f} s "
                f"(limit {self.limit_s:.0f} s)"
            )
            return []
        progress(f"{TENSEAL}: d={query.size}, map of about {predicted_s:.0f} s")
        request, encrypt_ms = _repeated(partial(self._encrypt, query), self.budget_s / 10)
        mapped, map_ms = _repeated(partial(self._map, request, affine.tolist()), self.budget_s)
        rows = []
        for work in works:
            classes = work.bias.size
            progress(f"{TENSEAL}: d={query.size} C={classes}")
            head = partial(self._head, mapped, work.head.tolist(), work.bias.tolist())
            reply, head_ms = _repeated(head, self.budget_s)
            logits, decrypt_ms = _repeated(partial(self._decrypt, reply), self.budget_s / 10)
            rows.append(
                BenchRow(
                    TENSEAL, query.size, classes, 1, encrypt_ms, map_ms + head_ms, decrypt_ms,
                    len(request), len(reply), self._key_bytes, work.error(np.array([logits])),
                )
            )  # fmt: skip
        return rows

    def _predicted_s(self, query: Matrix, affine: Matrix) -> float:
        """Time of the map, from that of its first rows: `mm` takes one rotation and one product a row."""
        probe = min(_PROBE_ROWS, query.size)
        request = self._encrypt(query[:probe])
        _, duration = _timed(partial(self._map, request, affine[:probe].tolist()))
        return duration / 1e3 * query.size / probe

    def _encrypt(self, query: Matrix) -> bytes:
        return bytes(tenseal.ckks_vector(self._client, query.tolist()).serialize())

    def _map(self, request: bytes, weight: list[list[float]]) -> tenseal.CKKSVector:
        return tenseal.ckks_vector_from(self._server, request).mm(weight)

    def _head(self, mapped: tenseal.CKKSVector, weight: list[list[float]], bias: list[float]) -> bytes:
        return bytes((mapped.mm(weight) + bias).serialize())

    def _decrypt(self, reply: bytes) -> list[float]:
        return list(tenseal.ckks_vector_from(self._client, reply).decrypt())


def run_bench(
    dims: Sequence[int] = (384, 768, 1024, 4096),
    classes: Sequence[int] = (2, 4, 20, 150),
    bulk_rows: int = 4096,
    *,
    repetitions: int = 51,
    quick: bool = False,
    progress: Progress = lambda _: None,
) -> list[BenchRow]:
    """Single queries of every dimension and number of classes, and one bulk batch of d=768, C=4.

    TenSEAL's `mm` takes seconds a row and is not measured in bulk.

    Args:
        dims, classes, bulk_rows: embedding dimensions d, numbers of classes C, rows of the bulk batch.
        repetitions: of a single query through Sealign; one in 17 for the bulk batch.
        quick: single queries of d=768 and C=4 only, and the bulk batch: under a minute.
        progress: told what is measured next, and what is left out and why.
    """
    if quick:
        dims, classes = (768,), (4,)
    rows = []
    for dim in dims:
        for count in classes:
            progress(f"{SEALIGN}: d={dim} C={count}")
            rows += sealign_rows(Workload.random(1, dim, count), repetitions)
    progress(f"{SEALIGN}: {bulk_rows} rows, d=768 C=4")
    rows += sealign_rows(Workload.random(bulk_rows, 768, 4), max(1, repetitions // 17))
    tenseal_bench = TensealBench()
    for dim in dims:
        rows += tenseal_bench.rows([Workload.random(1, dim, count) for count in classes], progress)
    return sorted(rows, key=lambda row: (row.batch, row.dim, row.classes))


def write_bench(rows: Sequence[BenchRow], directory: Path) -> Path:
    """Write ``product.json``, a list of objects with the fields of `BenchRow`, and return its path.

    Raises:
        StorageError: the file could not be written; an earlier one is intact.
    """
    path = directory / "product.json"
    write_atomically(path, (json.dumps([asdict(row) for row in rows], indent=2) + "\n").encode())
    return path


def bench_table(rows: Sequence[BenchRow]) -> Table:
    """The measurements for a terminal, with the ratio of TenSEAL's server time to each row's."""
    reference = {(row.dim, row.classes, row.batch): row.server_ms for row in rows if row.system == TENSEAL}
    table = Table(title="Encrypted product: one thread, medians, whole batches", box=None, pad_edge=False)
    table.add_column("system", no_wrap=True)
    headings = (
        "d", "C", "rows", "encrypt\nms", "server\nms", "decrypt\nms", "up\nKB", "down\nKB", "key\nKB",
        "largest\nerror", "server\nrows/s", "TenSEAL/\nthis",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        tenseal_ms = reference.get((row.dim, row.classes, row.batch))
        table.add_row(
            row.system,
            *map(str, (row.dim, row.classes, row.batch)),
            *map(short, (row.encrypt_ms, row.server_ms, row.decrypt_ms)),
            *(short(size / 1000) for size in (row.request_bytes, row.reply_bytes, row.key_bytes)),
            f"{row.max_abs_error:.1e}",
            short(row.batch / row.server_ms * 1e3),
            short(tenseal_ms / row.server_ms) if tenseal_ms else "",
        )
    return table
