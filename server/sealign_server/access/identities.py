"""Who is calling: what a certificate or a token says, unless it was revoked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from sealign.errors import AuthenticationError, StorageError, UnavailableError
from sealign_server.access.certificate_names import ANONYMOUS, identity_of
from sealign_server.access.forwarded import HEADER, forwarded_identity
from sealign_server.access.proxies import TrustedProxies
from sealign_server.ledger import IdentityRegister, Snapshot, token_digest

_log = structlog.get_logger()

AUTHORIZATION = "authorization"
_SCHEME = "bearer "
_REFRESH_SECONDS = 0.5
_STALE_SECONDS = 30.0
"""Age of what is known of identities beyond which nobody is let in."""

_Metadata = Sequence[tuple[str, "str | bytes"]]


class CallContext(Protocol):
    """What gRPC knows of a call."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return properties of the connection's peer."""

    def peer(self) -> str:
        """Return the address of the connection's other end."""

    def invocation_metadata(self) -> _Metadata | None:
        """Return the call's metadata."""


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a connection.

    Attributes:
        name: identity of the certificate, or "anonymous"; of a proxy, the name that it is recorded under.
        is_proxy: whether it is trusted to say whose calls it passes on.
    """

    name: str
    is_proxy: bool


class Identities:
    """What this process knows of identities; :meth:`refresh` makes it current.

    Args:
        register: the ledger's.
        accepts_tokens: whether callers may show a token in place of a certificate, or beside it.
        allows_anonymous: whether callers may show neither.
        proxies: that say whose calls they pass on.
    """

    def __init__(
        self,
        register: IdentityRegister,
        *,
        accepts_tokens: bool,
        allows_anonymous: bool,
        proxies: TrustedProxies | None = None,
    ) -> None:
        self._register = register
        self._proxies = proxies or TrustedProxies()
        self._accepts_tokens = accepts_tokens
        self._allows_anonymous = allows_anonymous
        self._known = Snapshot()
        self._read = float("-inf")

    def peer_of(self, context: CallContext) -> Peer:
        """Return who is at the other end of a call's connection, unchecked."""
        auth_context = context.auth_context()
        proxy = self._proxies.name_of(auth_context, context.peer())
        return Peer(identity_of(auth_context), is_proxy=False) if proxy is None else Peer(proxy, is_proxy=True)

    def of(self, peer: Peer, metadata: _Metadata) -> tuple[str, str]:
        """Return a caller's identity, and the digest of its token; a token counts more than a certificate.

        Raises:
            AuthenticationError: the token is unknown, has expired or was revoked; or there must be one. Or a header
                names another's certificate, and the peer is no trusted proxy, was revoked, or sent it malformed.
            UnavailableError: the ledger cannot be read, so that nobody knows what was revoked.
        """
        shown = self._shown(peer, metadata)
        token = _token(metadata)
        if token is None:
            identity, digest = shown, ""
            if identity == ANONYMOUS and not self._allows_anonymous:
                raise AuthenticationError(
                    "this silo needs to know who calls. Give a client certificate (tls_cert, tls_key) to it or to the "
                    "proxy before it, or set the token that its operator gave you: silo_token_file, or the variable "
                    "SEALIGN_CLIENT_SILO_TOKEN."
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

    def _shown(self, peer: Peer, metadata: _Metadata) -> str:
        """Return the identity of the certificate that the caller showed, here or to a proxy."""
        headers = [value for key, value in metadata if key == HEADER]
        if peer.is_proxy:
            self.require_valid(peer.name, "")
            # Without the header its client showed no certificate; the proxy's own identity is never its clients'.
            return forwarded_identity(*map(_text, headers)) if headers else ANONYMOUS
        if headers:
            raise AuthenticationError(
                f"the header {HEADER} counts from trusted proxies alone, and {peer.name[:200]!r} is none here. Call "
                "without the header, or ask the silo's operator to list the proxy in trusted_proxies."
            )
        return peer.name

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
            text = _text(value)
            return text[len(_SCHEME) :].strip() if text.lower().startswith(_SCHEME) else ""
    return None


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
