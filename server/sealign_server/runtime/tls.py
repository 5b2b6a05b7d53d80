"""TLS of a silo, from its settings."""

from __future__ import annotations

import grpc

from sealign.app.tls import load_authorities, load_identity
from sealign_server.settings import ServeSettings


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
