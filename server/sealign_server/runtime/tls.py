"""TLS of a silo, from its settings."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import structlog
from cryptography import x509

from sealign.app.tls import load_authorities, load_identity
from sealign_server.settings import ServeSettings

_log = structlog.get_logger()

_WARNING = timedelta(days=14)


def credentials(settings: ServeSettings) -> grpc.ServerCredentials:
    """Return TLS credentials; with a client authority, clients must show a certificate.

    Raises:
        InvalidInputError, AuthenticationError: certificates that cannot work.
    """
    identity = load_identity(settings.tls_cert, settings.tls_key)
    authorities = None if settings.tls_client_ca is None else load_authorities(settings.tls_client_ca)
    return grpc.ssl_server_credentials(
        [(identity.key, identity.certificate)], authorities, require_client_auth=authorities is not None
    )


def warn_of_expiry(settings: ServeSettings) -> None:
    """Log certificates that expire within two weeks."""
    for path in filter(None, (settings.tls_cert, settings.tls_client_ca)):
        ends = _ends(path)
        if ends - datetime.now(timezone.utc) < _WARNING:
            _log.warning("a certificate expires soon; renew it and restart", file=str(path), ends=ends.isoformat())


def _ends(path: Path) -> datetime:
    return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc
