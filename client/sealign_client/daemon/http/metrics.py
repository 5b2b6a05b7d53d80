"""Counts and times of the HTTP interface, for Prometheus. No label carries a text or anything that a caller chose."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sealign_client.results import CanaryReport

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one HTTP interface, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter("sealign_http_requests", "Answered requests.", ("path", "status"), registry=self.registry)
        self._seconds = Histogram(
            "sealign_http_request_seconds",
            "Time from a request's head to its answer's end.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("sealign_http_in_flight", "Calls that do work now.", registry=self.registry)
        self._texts = Counter("sealign_http_texts", "Texts classified.", registry=self.registry)
        self._tokens = Counter("sealign_http_generated_tokens", "Tokens generated.", registry=self.registry)

        names = (
            ("compared", "Answers to canaries that were compared."),
            ("wrong", "Answers to canaries that were wrong."),
        )
        self._canaries = {name: Gauge(f"sealign_canaries_{name}", said, registry=self.registry) for name, said in names}
        self._alarm = Gauge(
            "sealign_canary_alarm", "1 if canaries show that the silo's answers have changed.", registry=self.registry
        )

    def set_canaries(self, reports: Sequence[CanaryReport]) -> None:
        """Show how the silo has answered canaries, over all versions of tasks."""
        self._canaries["compared"].set(sum(report.compared for report in reports))
        self._canaries["wrong"].set(sum(report.wrong for report in reports))
        self._alarm.set(any(report.is_alarm for report in reports))

    def count_call(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request; ``path`` is a route's, never the caller's."""
        self._calls.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_texts(self, number: int) -> None:
        """Count classified texts."""
        self._texts.inc(number)

    def count_token(self) -> None:
        """Count a generated token."""
        self._tokens.inc()

    def rendered(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
