"""Sealign's errors as gRPC statuses and back, with the class of the error in the trailing metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from traceback import extract_tb
from typing import Any

import grpc
import structlog

from sealign import errors
from sealign.errors import SealignError

_log = structlog.get_logger()

_CLASS_KEY = "sealign-error"
_RETRY_KEY = "grpc-retry-pushback-ms"

_CLASSES: dict[str, type[SealignError]] = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, SealignError)
}


def status_of(error: SealignError) -> grpc.StatusCode:
    """The status under which the error crosses the wire."""
    status: grpc.StatusCode = grpc.StatusCode[error.status]
    return status


def trailers_of(error: SealignError) -> tuple[tuple[str, str], ...]:
    """Trailing metadata: the class of the error; for overload also when to come back."""
    trailers = ((_CLASS_KEY, type(error).__name__),)
    return (*trailers, (_RETRY_KEY, "1000")) if isinstance(error, errors.OverloadedError) else trailers


def error_of(failure: grpc.aio.AioRpcError, peer: str) -> SealignError:
    """The error that a failed call stands for; ``peer`` names the other side in messages."""
    details = failure.details() or ""
    for key, value in failure.trailing_metadata() or ():
        if key == _CLASS_KEY and isinstance(value, str) and value in _CLASSES:
            return _CLASSES[value](details)
    code = failure.code()
    if code == grpc.StatusCode.UNAVAILABLE and _is_handshake(details):
        return errors.AuthenticationError(
            f"TLS with {peer} failed: a certificate is expired, made for another name, or not trusted by the other "
            f"side. Check --tls-ca, --tls-cert and the silo's certificate. ({details[:300]})"
        )
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        advice = "Check the address and retry."
        if "failed to connect" in details and "Socket closed" in details:  # how a refused certificate looks from here
            advice = "It hung up: if it asks for client certificates, give one that it trusts (--tls-cert, --tls-key)."
        return errors.UnavailableError(f"{peer} does not answer: {details[:300]}. {advice}")
    if code == grpc.StatusCode.INTERNAL and details == "Internal error from Core":
        # A write that failed has hidden the status with which the other side ended the call (grpc/grpc#36066).
        return errors.UnavailableError(f"{peer} ended a stream early; ask again")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return errors.OverloadedError(f"{peer} refuses the call: {details[:300]}")
    return SealignError(f"the call to {peer} failed with {code.name}: {details[:300]}")


def _is_handshake(details: str) -> bool:
    lowered = details.lower()
    return any(sign in lowered for sign in ("handshake", "certificate", "ssl", "tsi", "peer name", "verification"))


@asynccontextmanager
async def answering(context: Any, method: str) -> AsyncIterator[None]:
    """Wrap a servicer's method: our errors become statuses with their message, others without any."""
    try:
        yield
    except SealignError as error:
        _log.warning("refused", method=method, error=type(error).__name__, reason=str(error))
        await context.abort(status_of(error), str(error), trailers_of(error))
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except Exception as error:  # noqa: BLE001
        # gRPC would send the exception's text, which may quote data.
        _log.error("internal error", method=method, error=type(error).__name__, at=_place(error))
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error ({type(error).__name__}); the log has it")


def _place(error: BaseException) -> str:
    """File and line where an error came up, without its text, which may quote data."""
    frame = extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"
