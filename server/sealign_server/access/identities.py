"""Who is calling, as far as TLS tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

ANONYMOUS = "anonymous"
"""All callers without a certificate. No certificate has this subject: those are lists of name=value."""


def identity_of(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    """Return the subject of the client's certificate (RFC 4514), or "anonymous" without one.

    The subject outlives the certificate: a renewed one is still the same client. A certificate with an empty subject
    is named by its SHA-256.
    """
    return _subject(next(iter(auth_context.get("x509_pem_cert", ())), b""))


@lru_cache(maxsize=4096)
def _subject(pem: bytes) -> str:
    if not pem:
        return ANONYMOUS
    certificate = x509.load_pem_x509_certificate(pem)
    subject = certificate.subject.rfc4514_string()
    return subject or f"sha256:{sha256(certificate.public_bytes(Encoding.DER)).hexdigest()}"
