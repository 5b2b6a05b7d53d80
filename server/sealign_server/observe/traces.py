"""A span for each call, inside the client's, and one within it for each stage of the work; never content."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sealign.app.ending import Ending
from sealign.app.frame import Call, Layer
from sealign.app.traces import tracer_provider

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_PARENT = ("traceparent", "tracestate")


class TraceLayer(Layer):
    """Sends spans to a collector.

    Args:
        endpoint: of the collector.

    Raises:
        InvalidInputError: the endpoint cannot be one, or the extra is not installed.
    """

    def __init__(self, endpoint: str) -> None:
        self._provider = tracer_provider("sealign-silo", endpoint)
        self._tracer = self._provider.get_tracer("sealign")
        self._spans: dict[Call, Span] = {}

    def on_begin(self, call: Call) -> None:
        """Begin the call's span."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        sent = {k: v for k, v in call.context.invocation_metadata() or () if k in _PARENT and isinstance(v, str)}
        parent = TraceContextTextMapPropagator().extract(sent)
        span = self._tracer.start_span(call.method, parent, SpanKind.SERVER)
        span.set_attributes({"rpc.system.name": "grpc", "rpc.method": call.method, "sealign.request": call.request_id})
        self._spans[call] = span

    def on_end(self, call: Call, ending: Ending) -> None:
        """End the call's span, and say how the call ended."""
        from opentelemetry.trace import Status, StatusCode

        span = self._spans.pop(call)
        span.set_attribute("rpc.response.status_code", ending.status)
        for name, value in call.facts.items():
            span.set_attribute(f"sealign.{name}", value)
        if ending.status == "INTERNAL":
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def on_stage(self, call: Call, stage: str, seconds: float) -> None:
        """Add a span of a stage that has just ended."""
        from opentelemetry.trace import set_span_in_context

        span = self._spans.get(call)
        if span is not None:
            now = time.time_ns()
            began = now - round(seconds * 1e9)
            self._tracer.start_span(stage, set_span_in_context(span), start_time=began).end(now)

    def close(self) -> None:
        """Send what there is to send."""
        self._provider.shutdown()
