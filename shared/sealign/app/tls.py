"""Certificates and keys from files, refused early and by name when they cannot work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from sealign.errors import AuthenticationError, InvalidInputError


@dataclass(frozen=True)
class TlsIdentity:
    """A certificate chain and its private key, PEM."""

    certificate: bytes
    key: bytes


def load_identity(certificate: Path, key: Path) -> TlsIdentity:
    """Read a certificate chain and its key.

    Raises:
        InvalidInputError: a file is missing or not PEM, or the key does not belong to the certificate.
        AuthenticationError: the certificate has expired or is not valid yet.
    """
    chain, secret = _read(certificate, "certificate"), _read(key, "private key")
    leaf = _certificates(chain, certificate)[0]
    try:
        private = serialization.load_pem_private_key(secret, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInputError(f"{key} is not an unencrypted private key in PEM form") from error
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if leaf.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        raise InvalidInputError(f"private key {key} does not belong to certificate {certificate}")
    _require_valid_now(leaf, certificate)
    return TlsIdentity(chain, secret)


def load_authorities(path: Path) -> bytes:
    """Read the certificates of the authorities that the other side's certificate must come from.

    Raises:
        InvalidInputError: the file is missing or not PEM.
        AuthenticationError: the first certificate has expired or is not valid yet.
    """
    content = _read(path, "authority")
    _require_valid_now(_certificates(content, path)[0], path)
    return content


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"could not read {what} file {path}: {error.strerror}") from error


def _certificates(content: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise InvalidInputError(f"{path} holds no certificate in PEM form") from error


def _require_valid_now(certificate: x509.Certificate, path: Path) -> None:
    now = datetime.now(timezone.utc)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise AuthenticationError(
            f"certificate {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and it is now {now:%Y-%m-%d %H:%M}: renew it"
        )
