"""The probe of a silo's health."""

from __future__ import annotations

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealign.app.addresses import parse_address
from sealign.app.tls import load_authorities, load_identity
from sealign.errors import NotFoundError, UnavailableError
from sealign.protocol import generation_task_of
from sealign_server.runtime.readiness import CLASSIFICATION, GENERATION, LIVENESS, READINESS


def service_of(task: str | None, *, live: bool) -> str:
    """Return the name under which the health of a silo, or of one of its tasks, is asked for.

    Args:
        task: a classification task, or "generation/TASK"; None for readiness.
        live: ask whether the process serves, whatever its tasks.
    """
    if task is None:
        return LIVENESS if live else READINESS
    generation = generation_task_of(task)
    return f"{CLASSIFICATION}/{task}" if generation is None else f"{GENERATION}/{generation}"


def require_serving(
    address: str, authority: Path, certificate: Path | None, key: Path | None, timeout: float, service: str = READINESS
) -> None:
    """Ask a silo whether it serves.

    Raises:
        UnavailableError: it does not answer, or what was asked about is not served.
        NotFoundError: it has no such task.
        InvalidInputError, AuthenticationError: certificates that cannot work.
    """
    identity = load_identity(certificate, key) if certificate and key else None
    credentials = grpc.ssl_channel_credentials(
        load_authorities(authority), identity.key if identity else None, identity.certificate if identity else None
    )
    request = health_pb2.HealthCheckRequest(service=service)
    options = [("grpc.enable_http_proxy", int(not parse_address(address).is_local))]
    with grpc.secure_channel(address, credentials, options) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise _unknown(address, service) from None
            raise UnavailableError(f"the silo at {address} does not answer: {error.details()}") from error
    if reply.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
        raise _unknown(address, service)
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        what = {LIVENESS: "is stopping", READINESS: "serves no task, or is stopping"}.get(
            service, f"does not serve {service}"
        )
        raise UnavailableError(f"the silo at {address} runs and {what}. See: sealign-server info, and its log")


def _unknown(address: str, service: str) -> NotFoundError:
    return NotFoundError(f"the silo at {address} has no {service}. See: sealign-server info")
