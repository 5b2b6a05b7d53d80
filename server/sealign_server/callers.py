"""Who is calling, as far as TLS tells, and how long to wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealign.errors import UnavailableError

_Request = TypeVar("_Request")

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


async def within(requests: AsyncIterator[_Request], seconds: float) -> AsyncIterator[_Request]:
    """The requests of a stream, each within so many seconds: a silent caller must not hold others up.

    Raises:
        UnavailableError: the next request did not come in time.
    """
    while True:
        try:
            request = await asyncio.wait_for(anext(requests), seconds)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise UnavailableError(f"the client sent nothing for {seconds:.0f} s") from None
        yield request
