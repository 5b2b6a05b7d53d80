"""Traces: a call of the client's and the silo's work on it are one trace, and hold no content."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from sealign.errors import InvalidInputError
from sealign_client import Client
from tests.support.processes import serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs the extra `traces`"
)

TEXT = PUBLIC.texts[0]


class Collector:
    """Takes spans, as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        """Name of the program, and span."""
        self._server = grpc.server(ThreadPoolExecutor(2))
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        handler = grpc.unary_unary_rpc_method_handler(
            self._export,
            trace_service.ExportTraceServiceRequest.FromString,
            trace_service.ExportTraceServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _export(self, request: Any, _: grpc.ServicerContext) -> Any:
        for resource in request.resource_spans:
            program = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.spans += [(program, span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service.ExportTraceServiceResponse()

    def close(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_one_trace_from_client_to_silo(collector: Collector, tls: Tls, tmp_path: Path) -> None:
    make_silo(tmp_path / "silo")
    options = (*tls.serve_options, "--otlp-endpoint", collector.endpoint)
    with serving("sealign-server", "serve", tmp_path / "silo", *options, log=tmp_path / "log") as silo:
        settings = tls.client_settings(silo.port, otlp_endpoint=collector.endpoint)
        with Client(settings, encoder=client_encoder()) as client:
            client.align(PUBLIC)
            client.logits(client_encoder().encode([TEXT]))
        assert silo.end() == 0
    deadline = time.monotonic() + 20
    while not any(span.name == "product" for _, span in collector.spans):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    spans = {span.span_id: (program, span) for program, span in collector.spans}
    (stage,) = (span for _, span in spans.values() if span.name == "product")
    program, call = spans[stage.parent_span_id]
    assert (program, call.name) == ("sealign-silo", "Classify")
    facts = {a.key: a.value.string_value or a.value.int_value for a in call.attributes}
    assert (facts["rpc.response.status_code"], facts["sealign.rows"]) == ("OK", 1)
    asker, asked = spans[call.parent_span_id]
    assert (asker, asked.name) == ("sealign-client", "/sealign.v1.Classification/Classify")
    assert asked.trace_id == call.trace_id == stage.trace_id
    assert asked.start_time_unix_nano <= stage.start_time_unix_nano <= stage.end_time_unix_nano
    learned = {span.name for _, span in spans.values()}
    assert {"Align", "learn", "wait", "budget"} <= learned
    assert not any(text in str(collector.spans) for text in PUBLIC.texts[:20])


def test_an_endpoint_that_cannot_be_one(tls: Tls) -> None:
    with (
        Client(tls.client_settings(1, otlp_endpoint="collector:4317"), encoder=client_encoder()) as client,
        pytest.raises(InvalidInputError, match="must be http://host:port"),
    ):
        client.silo()
