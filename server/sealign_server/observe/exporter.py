"""The page that Prometheus reads: the counts of all worker processes, and facts of the silo's state."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from sealign.app.addresses import Address, parse_address
from sealign.errors import InvalidInputError, StorageError, UnavailableError

if TYPE_CHECKING:
    from prometheus_client import Metric

_log = structlog.get_logger()

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_STATE_SECONDS = 15.0


@dataclass(frozen=True)
class SiloState:
    """What a silo's ledger and store say at the moment.

    Attributes:
        budgets: function that returns the lowest part of a budget that an identity has left, by task.
        qualities: function that returns the explained variance of each map, by space.
    """

    budgets: Callable[[], Mapping[str, float]]
    qualities: Callable[[], Mapping[str, Sequence[float]]]


@contextmanager
def _shared_directory() -> Iterator[str]:
    """Have prometheus_client, once it is imported, and workers, which inherit it, write to one directory."""
    with TemporaryDirectory(prefix="sealign-metrics-") as directory:
        os.environ[_DIRECTORY] = directory
        try:
            yield directory
        finally:
            del os.environ[_DIRECTORY]


@contextmanager
def metrics_served(listen: str | None, state: SiloState) -> Iterator[None]:
    """Serve metrics over HTTP while inside; processes that are started inside add theirs.

    Args:
        listen: host:port; None for no metrics.
        state: of the silo, looked at every 15 s at most.

    Raises:
        InvalidInputError: the address is a Unix socket.
        UnavailableError: it cannot be listened on.
    """
    if listen is None:
        yield
        return
    address = parse_address(listen)
    if address.path:
        raise InvalidInputError(f"cannot serve metrics on {listen}: Prometheus reads TCP; give host:port")
    with _shared_directory() as directory:
        from prometheus_client import CollectorRegistry, start_http_server
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
        registry.register(_StateCollector(state))
        try:
            server, thread = start_http_server(address.port, address.host, registry)
        except OSError as error:
            raise UnavailableError(
                f"cannot serve metrics on {listen}: {error.strerror}; choose another --metrics-listen"
            ) from error
        _log.info("serving metrics", address=str(Address(address.host, server.server_port)))
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def forget_worker(pid: int) -> None:
    """Drop the gauges of a worker that has ended; what it counted stays counted."""
    if _DIRECTORY in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid)  # type: ignore[no-untyped-call]


class _StateCollector:
    """Facts that no process counts: what the ledger and the store say, the same for all workers."""

    def __init__(self, state: SiloState) -> None:
        self._state = state
        self._looked = float("-inf")
        self._budgets: Mapping[str, float] = {}
        self._qualities: Mapping[str, Sequence[float]] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; what cannot be read keeps its last value, and is logged."""
        from prometheus_client.core import GaugeMetricFamily

        self._look()
        budgets = GaugeMetricFamily(
            "sealign_budget_remaining_ratio",
            "Lowest part of a budget for a task that an identity has left.",
            labels=("task",),
        )
        for task, ratio in self._budgets.items():
            budgets.add_metric((task,), ratio)
        quality = GaugeMetricFamily(
            "sealign_map_quality",
            "Explained variance of the maps of a space.",
            labels=("space", "statistic"),
        )
        for space, values in self._qualities.items():
            quality.add_metric((space, "lowest"), min(values))
            quality.add_metric((space, "median"), statistics.median(values))
        yield budgets
        yield quality

    def _look(self) -> None:
        if monotonic() - self._looked < _STATE_SECONDS:
            return
        self._looked = monotonic()
        try:
            self._budgets, self._qualities = self._state.budgets(), self._state.qualities()
        except StorageError as error:
            _log.error("the silo's state cannot be read for metrics", reason=str(error))
