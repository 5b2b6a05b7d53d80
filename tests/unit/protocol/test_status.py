"""Errors as gRPC statuses and back."""

from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from sealign import errors
from sealign.errors import AuthenticationError, OverloadedError, SealignError, UnavailableError
from sealign.protocol.status import error_of, status_of, trailers_of

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, SealignError)]


def failure(code: grpc.StatusCode, details: str, *trailers: tuple[str, str]) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailers), details)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_crosses_as_itself(kind: type[SealignError]) -> None:
    error = kind("what is wrong, where, and what to do")
    back = error_of(failure(status_of(error), str(error), *trailers_of(error)), "the silo")
    assert type(back) is kind
    assert str(back) == str(error)


def test_overload_says_when_to_come_back() -> None:
    assert dict(trailers_of(OverloadedError("full")))["grpc-retry-pushback-ms"] == "1000"


@pytest.mark.parametrize(
    ("code", "details", "kind", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Connection refused", UnavailableError, "Check the address"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", UnavailableError, "does not answer"),
        (grpc.StatusCode.UNAVAILABLE, "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", AuthenticationError, "TLS"),
        (grpc.StatusCode.UNAVAILABLE, "Hostname Verification Check failed", AuthenticationError, "another name"),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect: Socket closed", UnavailableError, "--tls-cert"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max", OverloadedError, "refuses the call"),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", UnavailableError, "ended a stream early"),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", SealignError, "UNIMPLEMENTED"),
    ],
)
def test_statuses_of_grpc_itself(code: grpc.StatusCode, details: str, kind: type, message: str) -> None:
    error = error_of(failure(code, details), "the silo at silo.example:7443")
    assert type(error) is kind
    assert "the silo at silo.example:7443" in str(error)
    assert message in str(error)


def test_a_peer_cannot_choose_other_classes_or_endless_messages() -> None:
    forged = failure(grpc.StatusCode.INTERNAL, "x" * 100_000, ("sealign-error", "SystemExit"))
    error = error_of(forged, "the silo")
    assert type(error) is SealignError
    assert len(str(error)) < 1000
