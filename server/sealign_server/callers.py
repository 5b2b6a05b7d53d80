"""Who is calling, as far as TLS tells."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

ANONYMOUS = "anonymous"


def caller(context: Any) -> str:
    """Subject of the client's certificate; its SHA-256 where that is empty; "anonymous" without a certificate.

    The subject outlives the certificate: a renewed one is still the same client.
    """
    (pem, *_) = context.auth_context().get("x509_pem_cert", [b""])
    if not pem:
        return ANONYMOUS
    certificate = x509.load_pem_x509_certificate(pem)
    subject = certificate.subject.rfc4514_string()
    return subject or f"sha256:{sha256(certificate.public_bytes(Encoding.DER)).hexdigest()}"
