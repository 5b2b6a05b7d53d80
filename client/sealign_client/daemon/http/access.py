"""Who may call: host and origin of a request, bearer token, and the page's one-time ticket."""

from __future__ import annotations

import hmac
import secrets

from starlette.datastructures import Headers

from sealign_client.daemon.http.options import HttpOptions
from sealign_client.daemon.http.problems import HttpError

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Access:
    """The tokens of one HTTP interface.

    The page's address, printed at start, carries a ticket. The page exchanges it once for a session token, so that an
    address in a terminal's history or a browser's gives nobody access.
    """

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._hosts = _LOOPBACK | {host.lower() for host in options.hosts}
        self._session: str | None = None
        self.ticket: str | None = None if options.token is None else secrets.token_urlsafe(24)

    def exchange(self, ticket: str) -> str:
        """Return a session token for the ticket, which is then worth nothing.

        Raises:
            HttpError: 401, if the ticket is wrong or has been used.
        """
        if self.ticket is None or not _same(ticket, self.ticket):
            raise _unauthenticated("The address has been used already, or is wrong. Give the daemon's token instead.")
        self.ticket, self._session = None, secrets.token_urlsafe(32)
        return self._session

    def check_host(self, headers: Headers) -> None:
        """Refuse a request for another host's name: what a browser sends after DNS rebinding.

        Raises:
            HttpError: 403.
        """
        given = headers.getlist("host")
        if len(given) != 1 or _name(given[0]) not in self._hosts:
            raise HttpError(
                403,
                "NOT_PERMITTED",
                "The Host header names another host. Use 127.0.0.1 or localhost, or allow the name with http_hosts.",
            )

    def check_origin(self, headers: Headers, *, navigation: bool) -> None:
        """Refuse what another site's page sends.

        Args:
            navigation: whether the path is a page, which a link on another site may open.

        Raises:
            HttpError: 403.
        """
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is None:
            foreign = site not in (None, "same-origin", "none")
            foreign = foreign and not (navigation and headers.get("sec-fetch-mode") == "navigate")
        else:
            foreign = origin not in (f"http://{headers.get('host')}", *self._options.origins)
        if foreign:
            raise HttpError(
                403,
                "NOT_PERMITTED",
                "The sending page is of another origin. Allow it with http_origins.",
            )

    def check_token(self, headers: Headers) -> None:
        """Refuse a request without the bearer token, or the page's session token.

        Raises:
            HttpError: 401.
        """
        if self._options.token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise _unauthenticated("Send the daemon's token: Authorization: Bearer TOKEN.")
        accepted = _same(given, self._options.token)
        if self._session is not None:
            accepted |= _same(given, self._session)
        if not accepted:
            raise _unauthenticated("The token is not this daemon's. Read it where the daemon keeps it.")

    def allowed_origin(self, headers: Headers) -> str | None:
        """Return the origin that may read the answer across origins; None if there is none."""
        origin = headers.get("origin")
        return origin if origin in self._options.origins else None


def _unauthenticated(detail: str) -> HttpError:
    return HttpError(401, "UNAUTHENTICATED", detail, headers={"WWW-Authenticate": 'Bearer realm="sealign"'})


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _name(host: str) -> str:
    """Return a Host header's name without the port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
