"""What is computed in a benchmark of the encrypted product, one measurement of it, and how it is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sealign.lab.plan_table import TYPICAL_CLASS_NORM

Matrix = NDArray[np.float64]
Progress = Callable[[str], None]
T = TypeVar("T")

MAP_OUTPUTS = 512
"""Dimension of the silo's embeddings in TenSEAL's map."""


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


def timed(operation: Callable[[], T]) -> tuple[T, float]:
    """The operation's result and its time in milliseconds."""
    start = time.perf_counter()
    result = operation()
    return result, (time.perf_counter() - start) * 1e3


def each(operations: Sequence[Callable[[], T]], before: Callable[[], None] | None = None) -> tuple[list[T], float]:
    """Results of the operations and their median time; ``before`` is called before each and not timed."""
    results, durations = [], []
    for operation in operations:
        if before is not None:
            before()
        result, duration = timed(operation)
        results.append(result)
        durations.append(duration)
    return results, median(durations)


def repeated(operation: Callable[[], T], budget_s: float) -> tuple[T, float]:
    """The operation's last result and its median time, over one repetition and what else fits the budget."""
    result, duration = timed(operation)
    durations = [duration]
    while sum(durations) + duration < budget_s * 1e3:
        result, duration = timed(operation)
        durations.append(duration)
    return result, median(durations)
