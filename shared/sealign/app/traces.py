"""Traces of OpenTelemetry, sent over OTLP to a collector; an extra (`sealign[traces]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealign.errors import InvalidInputError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def tracer_provider(service: str, endpoint: str) -> TracerProvider:
    """Return what makes spans and sends them, in a thread of its own; shut it down at the end.

    Args:
        service: name of the program, as traces show it.
        endpoint: of a collector that takes OTLP over gRPC: http://host:port in the clear, https://host:port with TLS.

    Raises:
        InvalidInputError: the endpoint is neither, or the extra is not installed.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise InvalidInputError(f"The OTLP endpoint {endpoint!r} must be http://host:port or https://host:port.")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidInputError(
            "Traces need an extra that is not installed. Run: pip install 'sealign[traces]', or unset otlp_endpoint."
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return provider
