"""What one process counts and times for Prometheus. No label carries anything that a caller chose.

prometheus_client decides when it is imported whether values are shared between processes. So it is imported when
metrics are wanted, after `sealign_server.observe.exporter` has said where the processes' files are.
"""

from __future__ import annotations

from time import perf_counter

from sealign.app.ending import Ending
from sealign.app.frame import Call, Layer

_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
_CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 300.0)
_REFUSALS = frozenset({"RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE"})


class Metrics:
    """The metrics of one serving process."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        registry = CollectorRegistry()  # of this process; the exporter reads the files of all
        self.requests = Counter("sealign_requests", "Calls that have ended.", ("rpc", "code"), registry=registry)
        self.seconds = Histogram(
            "sealign_request_duration_seconds",
            "Time from a call's beginning to its end; of streams, all of it.",
            ("rpc",),
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "sealign_stage_duration_seconds",
            "Time of a stage of the work: parse, budget, wait, product, learn.",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self.refused = Counter(
            "sealign_refused", "Calls that were refused, by error code.", ("reason",), registry=registry
        )
        self.in_flight = Gauge(
            "sealign_requests_in_flight", "Calls under way.", registry=registry, multiprocess_mode="livesum"
        )
        self.keys = Gauge(
            "sealign_keys_cached", "Public keys in memory.", registry=registry, multiprocess_mode="livesum"
        )
        self.zeros = Gauge(
            "sealign_zeros_ready",
            "Encryptions of zero made ahead, for the most recent key of each identity.",
            registry=registry,
            multiprocess_mode="livesum",
        )


class MetricsLayer(Layer):
    """Counts and times every call."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def on_begin(self, call: Call) -> None:
        """Count the call as under way."""
        del call
        self._metrics.in_flight.inc()

    def on_end(self, call: Call, ending: Ending) -> None:
        """Count the call, by how it ended."""
        metrics = self._metrics
        if ending.status in _REFUSALS:
            metrics.refused.labels(ending.code).inc()
        metrics.in_flight.dec()
        metrics.requests.labels(call.method, ending.status).inc()
        metrics.seconds.labels(call.method).observe(perf_counter() - call.started)

    def on_stage(self, call: Call, stage: str, seconds: float) -> None:
        """Time a stage."""
        del call
        self._metrics.stages.labels(stage).observe(seconds)
