"""The benchmark of Sealign's encrypted product."""

from __future__ import annotations

from functools import partial

import numpy as np

from sealign import ckks
from sealign.defaults import BATCH_ROWS
from sealign.lab.bench.workload import BenchRow, Matrix, Workload, each

SEALIGN = "sealign"
UNPREPARED = "sealign (no zeros prepared)"


class _SealignBench:
    """One workload through the encrypted product, in requests of at most 1,024 rows."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        weight = work.map @ work.head
        self.plan = ckks.plan_product(ckks.product_shape(weight, work.bias, rows=min(len(work.X), BATCH_ROWS[-1])))
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
        queries, encrypt_ms = each([self.encrypt] * repetitions)
        replies, server_ms = each([partial(self.serve, query) for query in queries], self._fill if prepared else None)
        logits, decrypt_ms = each([partial(self.decrypt, reply) for reply in replies])
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
