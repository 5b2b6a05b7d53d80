"""Certificates and keys from files, refused early and by entry when they cannot work.

Files may begin with a byte order mark and hold entries that have expired; what is given to TLS is clean PEM of the
entries that are valid.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes

from sealign.errors import AuthenticationError, InvalidInputError

WARNING_DAYS = 14
"""A certificate that expires within so many days is worth a warning."""

_log = logging.getLogger("sealign.tls")
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TlsIdentity:
    """A certificate chain and its private key, PEM.

    Attributes:
        certificate: the chain, the certificate of the key first.
        key: the private key.
        expires: when the certificate of the key is no longer valid.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    expires: datetime = field(kw_only=True)

    def days_left(self) -> float:
        """Return the days until the certificate expires; negative once it has."""
        return (self.expires - _now()).total_seconds() / 86400


@dataclass(frozen=True)
class _Entry:
    """One certificate of a file, and how to name it."""

    certificate: x509.Certificate
    name: str

    def is_valid(self) -> bool:
        return self.certificate.not_valid_before_utc <= _now() <= self.certificate.not_valid_after_utc

    def period(self) -> str:
        begin, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        return f"{self.name} is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"


def load_identity(certificate: Path, key: Path) -> TlsIdentity:
    """Read a certificate chain and its key; log a warning if it expires soon or others can read the key.

    Raises:
        InvalidInputError: a file is missing or not PEM, or the key belongs to no certificate of the file.
        AuthenticationError: the certificate of the key has expired or is not valid yet.
    """
    entries, secret = _entries(certificate, "certificate"), _read(key, "private key")
    private = _private_key(secret, key)
    matching = [entry for entry in entries if _same(entry.certificate.public_key(), private)]
    if not matching:
        raise InvalidInputError(f"Private key {key} does not belong to certificate {certificate}.")
    leaf = _valid(matching)[0]
    issuers = [entry for entry in entries if entry not in matching and entry.is_valid()]
    identity = TlsIdentity(_pem([leaf, *issuers]), secret, expires=leaf.certificate.not_valid_after_utc)
    if identity.days_left() < WARNING_DAYS:
        _log.warning("%s, %.1f days from now. Renew it.", leaf.period(), identity.days_left())
    if key.stat().st_mode & 0o004:
        _log.warning("Private key %s can be read by every user of this machine. Run chmod 600 on it.", key)
    return identity


def load_authorities(path: Path) -> bytes:
    """Read the certificates of the authorities that the other side's certificate must come from; PEM.

    Raises:
        InvalidInputError: the file is missing or not PEM.
        AuthenticationError: no certificate of the file is valid now.
    """
    return _pem(_valid(_entries(path, "authority")))


def _valid(entries: Sequence[_Entry]) -> list[_Entry]:
    """Return the entries that are valid now; log the others."""
    valid = [entry for entry in entries if entry.is_valid()]
    if not valid:
        periods = "; ".join(entry.period() for entry in entries)
        raise AuthenticationError(f"{periods}. It is now {_now():%Y-%m-%d %H:%M} UTC. Renew the certificate.")
    for entry in entries:
        if not entry.is_valid():
            _log.warning("%s. It is ignored. Remove it.", entry.period())
    return valid


def _entries(path: Path, what: str) -> list[_Entry]:
    blocks: list[bytes] = _BLOCK.findall(_read(path, what))
    if not blocks:
        raise InvalidInputError(f"{path} holds no certificate in PEM form.")
    entries = []
    for number, block in enumerate(blocks, 1):
        name = f"Certificate {path}" if len(blocks) == 1 else f"Certificate {number} of {path}"
        try:
            entries.append(_Entry(x509.load_pem_x509_certificate(block), name))
        except ValueError:
            raise InvalidInputError(f"{name} is damaged: its PEM block is no certificate.") from None
    return entries


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes().removeprefix(_MARK)
    except OSError as error:
        raise InvalidInputError(f"Could not read {what} file {path}: {error.strerror}.") from error


def _private_key(secret: bytes, path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(secret, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInputError(f"{path} is not an unencrypted private key in PEM form.") from None


def _same(public: CertificatePublicKeyTypes, private: PrivateKeyTypes) -> bool:
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(*form) == private.public_key().public_bytes(*form)


def _pem(entries: Sequence[_Entry]) -> bytes:
    return b"".join(entry.certificate.public_bytes(serialization.Encoding.PEM) for entry in entries)


def _now() -> datetime:
    return datetime.now(timezone.utc)
