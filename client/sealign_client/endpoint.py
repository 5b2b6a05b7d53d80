"""Where a silo is, and how its connection is protected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sealign.ckks import SecurityTable


@dataclass(frozen=True)
class Endpoint:
    """Where a silo is and how its connection is protected.

    Attributes:
        address: host and port.
        tls_ca: authority of the silo's certificate; None for the system's authorities.
        tls_cert, tls_key: the client's certificate and key; both or neither.
        table: security table that the silo's plans must satisfy.
    """

    address: str
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    table: SecurityTable = SecurityTable.CLASSICAL
