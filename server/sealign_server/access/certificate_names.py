"""What a certificate says of its holder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

ANONYMOUS = "anonymous"
"""All callers without a certificate or a token. No certificate has this subject: those are lists of name=value."""


def certificate_of(auth_context: Mapping[str, Iterable[bytes]]) -> bytes:
    """Return the certificate that a peer showed, PEM; empty without one."""
    return next(iter(auth_context.get("x509_pem_cert", ())), b"")


def identity_of(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    """Return the name that the peer's certificate gives, or "anonymous" without one."""
    pem = certificate_of(auth_context)
    return identity_of_certificate(pem) if pem else ANONYMOUS


@lru_cache(maxsize=4096)
def identity_of_certificate(pem: bytes) -> str:
    """Return the name that a certificate gives its holder.

    It is the subject (RFC 4514), which outlives the certificate: a renewed one is still the same client. With an empty
    subject it is the first URI or DNS name of the certificate, and without these its SHA-256.

    Raises:
        ValueError: it is no certificate.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    named = [certificate.subject.rfc4514_string(), *alternative_names(pem)]
    return next(filter(None, named), f"sha256:{sha256(certificate.public_bytes(Encoding.DER)).hexdigest()}")


@lru_cache(maxsize=4096)
def alternative_names(pem: bytes) -> tuple[str, ...]:
    """Return a certificate's alternative names as ``uri:…``, then as ``dns:…``.

    Raises:
        ValueError: it is no certificate.
    """
    try:
        extensions = x509.load_pem_x509_certificate(pem).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = names.get_values_for_type(x509.DNSName)
    return (*(f"uri:{name}" for name in uris), *(f"dns:{name}" for name in hosts))
