"""Who is calling: what a certificate or a token says, unless it was revoked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealign.errors import AuthenticationError, StorageError, UnavailableError
from sealign_server.ledger import IdentityRegister, Snapshot, token_digest

_log = structlog.get_logger()

ANONYMOUS = "anonymous"
"""All callers without a certificate or a token. No certificate has this subject: those are lists of name=value."""
AUTHORIZATION = "authorization"
_SCHEME = "bearer "
_REFRESH_SECONDS = 0.5
_STALE_SECONDS = 30.0
"""Age of what is known of identities beyond which nobody is let in."""


def identity_of(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    """Return the name that the client's certificate gives, or "anonymous" without one.

    It is the subject (RFC 4514), which outlives the certificate: a renewed one is still the same client. With an empty
    subject it is the first URI or DNS name of the certificate, and without these its SHA-256.
    """
    return _subject(next(iter(auth_context.get("x509_pem_cert", ())), b""))


@lru_cache(maxsize=4096)
def _subject(pem: bytes) -> str:
    if not pem:
        return ANONYMOUS
    certificate = x509.load_pem_x509_certificate(pem)
    subject = certificate.subject.rfc4514_string()
    if subject:
        return subject
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = names.get_values_for_type(x509.DNSName)
    named = [f"uri:{name}" for name in uris] + [f"dns:{name}" for name in hosts]
    return named[0] if named else f"sha256:{sha256(certificate.public_bytes(Encoding.DER)).hexdigest()}"


class Identities:
    """What this process knows of identities; :meth:`refresh` makes it current.

    Args:
        register: the ledger's.
        accepts_tokens: whether callers may show a token in place of a certificate, or beside it.
        allows_anonymous: whether callers may show neither.
    """

    def __init__(self, register: IdentityRegister, *, accepts_tokens: bool, allows_anonymous: bool) -> None:
        self._register = register
        self._accepts_tokens = accepts_tokens
        self._allows_anonymous = allows_anonymous
        self._known = Snapshot()
        self._read = float("-inf")

    def of(
        self, auth_context: Mapping[str, Iterable[bytes]], metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[str, str]:
        """Return a caller's identity, and the digest of its token; a token counts more than a certificate.

        Raises:
            AuthenticationError: the token is unknown, has expired or was revoked; or there must be one.
            UnavailableError: the ledger cannot be read, so that nobody knows what was revoked.
        """
        token = _token(metadata)
        if token is None:
            identity, digest = identity_of(auth_context), ""
            if identity == ANONYMOUS and not self._allows_anonymous:
                raise AuthenticationError(
                    "this silo needs to know who calls. Set the token that its operator gave you: silo_token_file, or "
                    "the variable SEALIGN_CLIENT_SILO_TOKEN."
                )
        elif not self._accepts_tokens:
            raise AuthenticationError(
                "this silo accepts no tokens. Call without one, or ask its operator to serve with --tokens."
            )
        else:
            digest = token_digest(token)
            identity = self._known.tokens.get(digest, ("", None))[0]
        self.require_valid(identity, digest)
        return identity, digest

    def require_valid(self, identity: str, digest: str) -> None:
        """Refuse an identity or a token that was revoked, or has expired, since the call began.

        Raises:
            AuthenticationError, UnavailableError: as for :meth:`of`.
        """
        if time.monotonic() - self._read > _STALE_SECONDS:
            raise UnavailableError("the silo cannot check identities at the moment; try again", retry_after=1.0)
        if digest:
            holder, expires = self._known.tokens.get(digest, ("", None))
            if not holder or (expires is not None and time.time() >= expires):
                raise AuthenticationError(
                    "this token is unknown here, has expired or was revoked. Ask the silo's operator for a new one."
                )
        if identity in self._known.revoked:
            raise AuthenticationError("this identity was revoked by the silo's operator")

    def refresh(self) -> None:
        """Read what has changed; what cannot be read is logged."""
        try:
            self._known = self._register.snapshot(self._known)
            self._read = time.monotonic()
        except StorageError as error:
            _log.error("identities cannot be read", reason=str(error))

    async def keep_current(self) -> None:
        """Refresh twice a second; never returns."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            await asyncio.to_thread(self.refresh)


def _token(metadata: Sequence[tuple[str, str | bytes]]) -> str | None:
    """Return the bearer token among a call's metadata; None without one."""
    for key, value in metadata:
        if key == AUTHORIZATION:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            return text[len(_SCHEME) :].strip() if text.lower().startswith(_SCHEME) else ""
    return None
