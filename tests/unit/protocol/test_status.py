"""Errors as gRPC statuses with details, and back."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata
from grpc_status import rpc_status

from sealign import errors
from sealign.errors import (
    AuthenticationError,
    InvalidInputError,
    MachineError,
    OverloadedError,
    PeerFailedError,
    SealignError,
    StorageError,
    UnavailableError,
)
from sealign.protocol.status import DETAILS_KEY, DOMAIN, error_of, sendable, status_of, trailers_of

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, SealignError)]
SENT = [c for c in CLASSES if not issubclass(c, MachineError)]


def failure(code: grpc.StatusCode, details: str, *trailers: tuple[str, str | bytes]) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailers), details)


@pytest.mark.parametrize("kind", SENT)
def test_what_the_caller_did_crosses_as_itself(kind: type[SealignError]) -> None:
    error = kind("what is wrong, where, and what to do", retry_after=1.5)
    sent, incident = sendable(error)
    assert sent is error
    assert incident is None
    back = error_of(failure(status_of(error), str(error), *trailers_of(error)), "the silo")
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.retry_after == 1.5


def test_codes_are_stable_and_distinct() -> None:
    codes = [kind.code for kind in CLASSES if kind not in (SealignError, MachineError)]
    assert len(codes) == len(set(codes))
    assert all(code.isupper() for code in codes)


@pytest.mark.parametrize("error", [StorageError("/srv/silo/head is damaged"), OSError("/srv/silo"), ValueError("text")])
def test_what_is_wrong_at_this_machine_crosses_as_an_id(error: Exception) -> None:
    sent, incident = sendable(error)
    assert incident is not None
    assert type(sent) is PeerFailedError
    assert incident in str(sent)
    assert "/srv" not in str(sent)
    assert "text" not in str(sent)
    assert sendable(error)[1] != incident


def test_other_languages_read_the_details() -> None:
    """`grpc_status` is Google's own reader of them."""
    error = OverloadedError("the silo is full", retry_after=0.25)
    call = failure(status_of(error), str(error), *trailers_of(error))
    status = rpc_status.from_call(call)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("OVERLOADED", DOMAIN)
    assert retry.retry_delay.ToMilliseconds() == 250


@pytest.mark.parametrize(
    ("code", "details", "kind", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Connection refused", UnavailableError, "Check the address"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", UnavailableError, "does not answer"),
        (grpc.StatusCode.UNAVAILABLE, "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", AuthenticationError, "TLS"),
        (grpc.StatusCode.UNAVAILABLE, "Hostname Verification Check failed", AuthenticationError, "another name"),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect: Socket closed", UnavailableError, "--tls-cert"),
        (grpc.StatusCode.UNAVAILABLE, "Ssl handshake failed: connection reset", UnavailableError, "retry"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max", OverloadedError, "refuses the call"),
        (grpc.StatusCode.CANCELLED, "CANCELLED", UnavailableError, "shuts down"),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", UnavailableError, "ended a stream early"),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", PeerFailedError, "UNIMPLEMENTED"),
    ],
)
def test_statuses_of_grpc_itself(code: grpc.StatusCode, details: str, kind: type, message: str) -> None:
    error = error_of(failure(code, details), "the silo at silo.example:7443")
    assert type(error) is kind
    assert "the silo at silo.example:7443" in str(error)
    assert message in str(error)


def forged(reason: str, domain: str) -> bytes:
    status = status_pb2.Status()
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    content: bytes = status.SerializeToString()
    return content


@pytest.mark.parametrize(
    "details", [b"\xff\xff", b"", forged("SystemExit", DOMAIN), forged("STORAGE", DOMAIN), forged("NO_MAP", "other")]
)
def test_a_peer_cannot_choose_other_classes_or_endless_messages(details: bytes) -> None:
    error = error_of(failure(grpc.StatusCode.INTERNAL, "x" * 100_000, (DETAILS_KEY, details)), "the silo")
    assert type(error) is PeerFailedError
    assert len(str(error)) < 1000
    long = InvalidInputError("x" * 100_000)
    back = error_of(failure(status_of(long), str(long), *trailers_of(long)), "the silo")
    assert len(str(back)) < 5000
