"""TLS of a silo, from its settings; certificates that change on disk are used for the connections that follow."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from time import monotonic

import grpc
import structlog

from sealign.app.stamps import Stamp, stamp_of
from sealign.app.tls import load_authorities, load_identity
from sealign.errors import AuthenticationError, InvalidInputError
from sealign_server.settings import ServeSettings

_log = structlog.get_logger()

_LOOK_SECONDS = 0.5


class Certificates:
    """The silo's certificate files; ones that cannot work are logged, and the earlier ones stay in use.

    Args:
        settings: name them.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._seen = self._stamps()
        self._looked = monotonic()

    def credentials(self, *, demanding: bool) -> grpc.ServerCredentials:
        """Return TLS credentials. gRPC's Python can demand clients' certificates or not ask for them, and no third.

        Args:
            demanding: whether clients must show a certificate, where there is an authority for them.

        Raises:
            InvalidInputError, AuthenticationError: certificates that cannot work.
        """
        return grpc.dynamic_ssl_server_credentials(
            self.loaded(),
            self.changed,  # type: ignore[arg-type]  # None, for no change, is not in its types
            require_client_authentication=demanding and self._settings.tls_client_ca is not None,
        )

    def look_again(self) -> None:
        """Look at the files at the next handshake, however soon it comes."""
        self._looked = float("-inf")

    def loaded(self) -> grpc.ServerCertificateConfiguration:
        """Return what the files hold.

        Raises:
            InvalidInputError, AuthenticationError: certificates that cannot work.
        """
        settings = self._settings
        identity = load_identity(settings.tls_cert, settings.tls_key)
        authorities = None if settings.tls_client_ca is None else load_authorities(settings.tls_client_ca)
        return grpc.ssl_server_certificate_configuration([(identity.key, identity.certificate)], authorities)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files hold if that has changed; gRPC asks at each handshake, in threads of its own."""
        with self._lock:
            if monotonic() - self._looked < _LOOK_SECONDS:
                return None
            self._looked = monotonic()
            stamps = self._stamps()
            if stamps == self._seen:
                return None
            try:
                found = self.loaded()
            except (InvalidInputError, AuthenticationError) as error:
                _log.error("new certificates cannot be used; the earlier ones stay", reason=str(error))
                return None
            self._seen = stamps
            _log.info("certificates reloaded")
            return found

    def _stamps(self) -> tuple[Stamp | None, ...]:
        """Return what tells a replaced file from the earlier one."""
        files: tuple[Path | None, ...] = (self._settings.tls_cert, self._settings.tls_key, self._settings.tls_client_ca)
        return tuple(map(stamp_of, filter(None, files)))
