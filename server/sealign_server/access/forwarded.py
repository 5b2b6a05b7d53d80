"""The header ``x-forwarded-client-cert``, in which a proxy says whose certificate it has checked.

Its form is Envoy's. Elements are separated by commas, pairs within an element by semicolons, and a value may stand in
double quotes, in which a backslash escapes the character after it. Each proxy on the way adds an element at the end.
A header that departs from the form in any place is refused whole: what a client put into it could otherwise pass for
the proxy's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sealign.errors import AuthenticationError
from sealign_server.access.certificate_names import identity_of_certificate

HEADER = "x-forwarded-client-cert"

_PAIR = re.compile(r'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;\\]*))(?:;|(, *)|\Z)')
_ONCE = frozenset({"hash", "cert", "subject"})
_QUOTED = frozenset({"cert", "subject"})
# What TLS libraries call attributes that RFC 4514 has no name for.
_ATTRIBUTES = MappingProxyType(
    {
        "emailAddress": NameOID.EMAIL_ADDRESS,
        "serialNumber": NameOID.SERIAL_NUMBER,
        "SN": NameOID.SURNAME,
        "GN": NameOID.GIVEN_NAME,
        "title": NameOID.TITLE,
        "street": NameOID.STREET_ADDRESS,
        "postalCode": NameOID.POSTAL_CODE,
        "dnQualifier": NameOID.DN_QUALIFIER,
        "pseudonym": NameOID.PSEUDONYM,
        "organizationIdentifier": NameOID.ORGANIZATION_IDENTIFIER,
    }
)

_Element = dict[str, list[str]]


@lru_cache(maxsize=4096)
def forwarded_identity(header: str, *more: str) -> str:
    """Return the identity that the header's last element names, as the certificate itself would give it.

    More than one header is refused: their order may be the client's. The identity is read from ``Cert`` if the proxy
    sends that. Otherwise it is ``Subject``, or with an empty one the first ``URI`` or ``DNS``.

    Raises:
        AuthenticationError: the header is malformed, or does not say enough.
    """
    if more:
        raise _refusal("there are several")
    last = _elements(header)[-1]
    if "cert" in last:
        return _of_certificate(unquote_to_bytes(last["cert"][0]), last.get("hash", [""])[0])
    if "subject" not in last:
        raise _refusal("it holds neither Cert nor Subject")
    if last["subject"][0]:
        return _canonical(last["subject"][0])
    named = [f"{key}:{value}" for key in ("uri", "dns") for value in last.get(key, ()) if value]
    if not named:
        raise _refusal("the certificate has no subject, and the header neither Cert nor URI nor DNS")
    return named[0]


def _elements(header: str) -> list[_Element]:
    """Return the values of each element by key in lower case, the last element last."""
    elements: list[_Element] = [{}]
    place, ended = 0, False
    while not ended:
        found = _PAIR.match(header, place)
        if found is None:
            raise _refusal("it does not have Envoy's form")
        key, quoted = found[1].lower(), found[2]
        values = elements[-1].setdefault(key, [])
        if (values and key in _ONCE) or (quoted is None and key in _QUOTED):
            raise _refusal(f"{found[1]} stands there twice, or without quotes")
        values.append(found[3] if quoted is None else quoted)
        place = found.end()
        ended = place == len(header) and header[-1] not in ";, "
        if found[4] is not None:
            elements.append({})
    return elements


def _of_certificate(pem: bytes, digest: str) -> str:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        identity = identity_of_certificate(pem)
    except ValueError:
        raise _refusal("Cert is no certificate") from None
    if digest and digest.lower() != sha256(certificate.public_bytes(Encoding.DER)).hexdigest():
        raise _refusal("Hash is not that of Cert")
    return identity


def _canonical(subject: str) -> str:
    """Return a subject as a certificate's own is written here; other libraries escape other characters."""
    try:
        written = x509.Name.from_rfc4514_string(subject, dict(_ATTRIBUTES)).rfc4514_string()
    except ValueError:
        written = ""
    if not written:
        raise _refusal("its Subject cannot be read")
    return written


def _refusal(reason: str) -> AuthenticationError:
    return AuthenticationError(
        f"the proxy before this silo sent a header {HEADER} that does not say who calls: {reason}. Ask the silo's "
        "operator to have the proxy replace the header, with Cert in it."
    )
