"""Sealign's errors as gRPC statuses with details (`google.rpc.ErrorInfo`, `RetryInfo`), and back."""

from __future__ import annotations

import secrets

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from sealign import errors
from sealign.errors import MachineError, PeerFailedError, SealignError

DOMAIN = "sealign"
"""Of the stable codes in `ErrorInfo.reason`."""
DETAILS_KEY = "grpc-status-details-bin"
_MAX_DETAILS = 300
_MAX_MESSAGE = 4096

_CLASSES: dict[str, type[SealignError]] = {
    value.code: value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, SealignError) and not issubclass(value, MachineError)
}


def status_of(error: SealignError) -> grpc.StatusCode:
    """Return the status under which the error crosses the wire."""
    status: grpc.StatusCode = grpc.StatusCode[error.status]
    return status


def trailers_of(error: SealignError) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata of an error: its code, and when to ask again if waiting helps."""
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN))]
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after * 1e3))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    status = status_pb2.Status(code=status_of(error).value[0], message=str(error), details=details)
    return ((DETAILS_KEY, status.SerializeToString()),)


def sendable(error: Exception) -> tuple[SealignError, str | None]:
    """Return what the other side may see of an error, and the id under which the error is to be logged here.

    What the caller did is sent, and needs no id. What is wrong at this machine, or was not foreseen, becomes an id; if
    it passes by itself, the other side is told to ask again.
    """
    if isinstance(error, SealignError) and not isinstance(error, MachineError):
        return error, None
    incident = secrets.token_hex(6)
    if isinstance(error, MachineError) and error.retry_after is not None:
        return errors.UnavailableError(
            f"the other side cannot do this at the moment, as its log says under id {incident}; try again",
            retry_after=error.retry_after,
        ), incident
    return PeerFailedError(
        f"the call failed at the other side; its log has the reason under id {incident}. Give its operator this id."
    ), incident


def error_of(failure: grpc.aio.AioRpcError | grpc.Call, peer: str) -> SealignError:
    """Return the error that a failed call stands for; ``peer`` names the other side in messages."""
    sent = _sent(failure)
    if sent is not None:
        return sent
    details, code = (failure.details() or "")[:_MAX_DETAILS], failure.code()
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return _unreachable(details, peer)
    if code == grpc.StatusCode.INTERNAL and details == "Internal error from Core":
        # A write that failed has hidden the status with which the other side ended the call (grpc/grpc#36066).
        return errors.UnavailableError(f"{peer} ended a stream early; ask again")
    if code == grpc.StatusCode.CANCELLED:
        return errors.UnavailableError(f"{peer} ended the call, as a silo does that shuts down; ask again")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return errors.OverloadedError(f"{peer} refuses the call: {details}")
    return PeerFailedError(f"the call to {peer} failed with {code.name}: {details}")


def _sent(failure: grpc.aio.AioRpcError | grpc.Call) -> SealignError | None:
    """Return the error that the other side described; None where the status is gRPC's own."""
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return _described(value, (failure.details() or "")[:_MAX_MESSAGE])
    return None


def _described(value: bytes, message: str) -> SealignError | None:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    try:
        for detail in status_pb2.Status.FromString(value).details:
            detail.Unpack(info) or detail.Unpack(retry)
    except DecodeError:  # whatever a peer sends, the status itself still says something
        return None
    if info.domain != DOMAIN or info.reason not in _CLASSES:
        return None
    after = retry.retry_delay.ToMilliseconds() / 1e3 if retry.HasField("retry_delay") else None
    return _CLASSES[info.reason](message, retry_after=after)


def _unreachable(details: str, peer: str) -> SealignError:
    lowered = details.lower()
    if any(sign in lowered for sign in ("certificate", "peer name", "verification")):
        return errors.AuthenticationError(
            f"TLS with {peer} failed: a certificate is expired, made for another name, or not trusted by the other "
            "side, or another server answers at this address. Check --tls-ca, --tls-cert, the address and the silo's "
            f"certificate; retry if addresses are changing. ({details})"
        )
    # A refused certificate looks like a silo that hung up, or that is not there: of several addresses, gRPC names one.
    return errors.UnavailableError(
        f"{peer} does not answer: {details}. Check the address and retry. If the silo asks for client certificates, "
        "give one that it trusts (--tls-cert, --tls-key)."
    )


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
