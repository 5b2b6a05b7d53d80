"""The benchmark of TenSEAL's own matrix product, `mm`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import tenseal

from sealign.lab.bench.workload import BenchRow, Matrix, Progress, Workload, repeated, timed

TENSEAL = "tenseal mm"
BUDGET_S = 6.0
"""An operation is repeated while the repetitions fit into this time; it is done once in any case."""
LIMIT_S = 240.0
"""A map that would take longer is left out of the results, and said to be."""
_PROBE_ROWS = 64


class TensealBench:
    """TenSEAL's high-level interface at N=8192, primes of 60, 40, 40 and 60 bits, scale 2^40, one thread.

    Args:
        budget_s: each operation is repeated while the repetitions fit into this time.
        limit_s: a map that would take longer is left out.
    """

    def __init__(self, budget_s: float = BUDGET_S, limit_s: float = LIMIT_S) -> None:
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
        request, encrypt_ms = repeated(partial(self._encrypt, query), self.budget_s / 10)
        mapped, map_ms = repeated(partial(self._map, request, affine.tolist()), self.budget_s)
        rows = []
        for work in works:
            classes = work.bias.size
            progress(f"{TENSEAL}: d={query.size} C={classes}")
            head = partial(self._head, mapped, work.head.tolist(), work.bias.tolist())
            reply, head_ms = repeated(head, self.budget_s)
            logits, decrypt_ms = repeated(partial(self._decrypt, reply), self.budget_s / 10)
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
        _, duration = timed(partial(self._map, request, affine[:probe].tolist()))
        return duration / 1e3 * query.size / probe

    def _encrypt(self, query: Matrix) -> bytes:
        return bytes(tenseal.ckks_vector(self._client, query.tolist()).serialize())

    def _map(self, request: bytes, weight: list[list[float]]) -> tenseal.CKKSVector:
        return tenseal.ckks_vector_from(self._server, request).mm(weight)

    def _head(self, mapped: tenseal.CKKSVector, weight: list[list[float]], bias: list[float]) -> bytes:
        return bytes((mapped.mm(weight) + bias).serialize())

    def _decrypt(self, reply: bytes) -> list[float]:
        return list(tenseal.ckks_vector_from(self._client, reply).decrypt())
