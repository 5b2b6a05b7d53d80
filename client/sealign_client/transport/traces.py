"""A span for each call to the silo, which the silo's spans are inside."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from sealign.app.traces import tracer_provider


class Traces:
    """Sends a client's spans to a collector.

    Args:
        endpoint: of the collector.

    Raises:
        InvalidInputError: the endpoint cannot be one, or the extra is not installed.
    """

    def __init__(self, endpoint: str) -> None:
        self._provider = tracer_provider("sealign-client", endpoint)

    def interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        """Return what makes spans, and sends their names along."""
        from opentelemetry.instrumentation.grpc import aio_client_interceptors

        made: Sequence[grpc.aio.ClientInterceptor] = aio_client_interceptors(  # type: ignore[no-untyped-call]
            tracer_provider=self._provider
        )
        return made

    def close(self) -> None:
        """Send what there is to send."""
        self._provider.shutdown()
