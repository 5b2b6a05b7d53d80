"""Where a silo is, and how its connection is protected."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sealign.app.stamps import Stamp, stamp_of
from sealign.security import SecurityTable


@dataclass(frozen=True)
class Endpoint:
    """Where a silo is and how its connection is protected.

    Attributes:
        address: host and port.
        tls_ca: authority of the silo's certificate; None for the system's authorities.
        tls_cert, tls_key: the client's certificate and key; both or neither.
        token: that the silo's operator gave, or the file that holds it; None for none.
        otlp: collector of traces; None for none.
        table: security table that the silo's plans must satisfy.
    """

    address: str
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token: str | Path | None = field(default=None, repr=False)
    otlp: str | None = None
    table: SecurityTable = SecurityTable.CLASSICAL

    def stamps(self) -> tuple[Stamp | None, ...]:
        """Return what tells replaced certificate files from the earlier ones."""
        return tuple(map(stamp_of, filter(None, (self.tls_ca, self.tls_cert, self.tls_key))))
