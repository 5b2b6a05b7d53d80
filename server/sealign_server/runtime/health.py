"""The probe of a silo's health."""

from __future__ import annotations

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealign.app.tls import load_authorities, load_identity
from sealign.errors import UnavailableError


def require_serving(address: str, authority: Path, certificate: Path | None, key: Path | None, timeout: float) -> None:
    """Ask a silo whether it serves.

    Raises:
        UnavailableError: it does not answer, or does not serve.
        InvalidInputError, AuthenticationError: certificates that cannot work.
    """
    identity = load_identity(certificate, key) if certificate and key else None
    credentials = grpc.ssl_channel_credentials(
        load_authorities(authority), identity.key if identity else None, identity.certificate if identity else None
    )
    with grpc.secure_channel(address, credentials) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise UnavailableError(f"the silo at {address} does not answer: {error.details()}") from error
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise UnavailableError(f"the silo at {address} is up but not serving")
