"""Identities, their tokens, and what was revoked."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from sqlalchemy import Connection, and_, func, or_, select, update

from sealign.errors import InvalidInputError, NotFoundError
from sealign_server.ledger.database import IDENTITIES, TOKENS, VERSIONS, Ledger

TOKEN_PREFIX = "sealign_"  # noqa: S105
"""What tokens begin with, so that scanners of leaked secrets know them."""
_NAME = "identities"
_FAULTS = 10
_i, _t, _v = IDENTITIES.c, TOKENS.c, VERSIONS.c


@dataclass(frozen=True)
class IdentityFacts:
    """An identity, as an operator sees it; times are seconds since 1970, UTC.

    Attributes:
        identity: its name.
        created: when it was added.
        revoked: when it was revoked; None for one that is valid.
        tokens: numbers of the tokens that are valid now.
        expires: when the last of them expires; None for never, or without tokens.
    """

    identity: str
    created: float
    revoked: float | None
    tokens: tuple[int, ...]
    expires: float | None


@dataclass(frozen=True)
class Snapshot:
    """Who may call, at one moment.

    Attributes:
        version: grows with each change.
        tokens: identity and time of expiry (None: never) by digest, of tokens that were not revoked.
        revoked: identities that may not call, whatever they show.
    """

    version: int = 0
    tokens: Mapping[str, tuple[str, float | None]] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Newcomer:
    """An identity that is to be added.

    Attributes:
        identity: its name.
        token: that it will show; None for one that shows a certificate.
        seconds: until the token expires.
        place: where it was read, for errors.
    """

    identity: str
    token: str | None
    seconds: float
    place: str


def new_token() -> str:
    """Return a token that nobody can guess."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """Return what is stored of a token. It is random, so a plain hash tells nothing of it."""
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class IdentityRegister:
    """Identities in the ledger.

    Args:
        ledger: holds them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(self, identity: str) -> None:
        """Add an identity, or restore a revoked one; its old tokens stay revoked.

        Raises:
            InvalidInputError: it is there already, and valid; or the name cannot be one.
            StorageError: the ledger cannot be written.
        """
        with self._ledger.transaction() as connection:
            if (fault := _add(connection, identity)) is not None:
                raise InvalidInputError(fault)
            _changed(connection)

    def add_all(self, newcomers: Sequence[Newcomer]) -> None:
        """Add identities, each with its token if it has one: all of them or, if one cannot be added, none.

        Raises:
            InvalidInputError: some cannot be added, by their places.
            StorageError: the ledger cannot be written; none was added.
        """
        now = time.time()
        with self._ledger.transaction() as connection:
            faults = []
            for newcomer in newcomers:
                if (fault := _add(connection, newcomer.identity)) is not None:
                    faults.append(f"{newcomer.place}: {fault}")
                elif newcomer.token is not None:
                    _add_token(connection, newcomer.identity, newcomer.token, now, now + newcomer.seconds)
            if faults:
                more = f", and {len(faults) - _FAULTS} more" if len(faults) > _FAULTS else ""
                raise InvalidInputError(f"nothing was added. {'; '.join(faults[:_FAULTS])}{more}")
            _changed(connection)

    def issue(self, identity: str, seconds: float | None, *, overlap: float | None = None) -> tuple[int, str]:
        """Return the number of a new token and the token itself, which is stored nowhere.

        Args:
            identity: that the token stands for.
            seconds: until it expires; None for never.
            overlap: seconds after which the identity's earlier tokens expire; None leaves them.

        Raises:
            NotFoundError: there is no such identity, or it was revoked.
            StorageError: the ledger cannot be written.
        """
        token, now = new_token(), time.time()
        with self._ledger.transaction() as connection:
            _require(connection, identity)
            if overlap is not None:
                ends = now + overlap
                valid = and_(_t.identity == identity, or_(_t.expires.is_(None), _t.expires > ends))
                connection.execute(update(TOKENS).where(valid).values(expires=ends))
            number = _add_token(connection, identity, token, now, None if seconds is None else now + seconds)
            _changed(connection)
        return number, token

    def revoke(self, identity: str) -> None:
        """Revoke an identity with all its tokens, whether it was added or is known by its certificate alone.

        Raises:
            StorageError: the ledger cannot be written.
        """
        now = time.time()
        with self._ledger.transaction() as connection:
            if not connection.execute(update(IDENTITIES).where(_i.identity == identity).values(revoked=now)).rowcount:
                connection.execute(IDENTITIES.insert().values(identity=identity, created=now, revoked=now))
            live = and_(_t.identity == identity, _t.revoked.is_(None))
            connection.execute(update(TOKENS).where(live).values(revoked=now))
            _changed(connection)

    def revoke_token(self, number: int) -> str:
        """Revoke one token, and return its identity.

        Raises:
            NotFoundError: there is no such token, or it was revoked before.
            StorageError: the ledger cannot be written.
        """
        with self._ledger.transaction() as connection:
            live = and_(_t.number == number, _t.revoked.is_(None))
            found = connection.execute(select(_t.identity).where(live)).first()
            if found is None:
                raise NotFoundError(f"there is no token {number} that is valid; see: sealign-server identity list")
            connection.execute(update(TOKENS).where(live).values(revoked=time.time()))
            _changed(connection)
            return str(found.identity)

    def all(self) -> list[IdentityFacts]:
        """Return all identities that were added or revoked, by name.

        Raises:
            StorageError: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        now = time.time()
        with self._ledger.reading() as connection:
            live = and_(_t.revoked.is_(None), or_(_t.expires.is_(None), _t.expires > now))
            tokens: dict[str, list[tuple[int, float | None]]] = {}
            for row in connection.execute(select(TOKENS).where(live).order_by(_t.number)):
                tokens.setdefault(row.identity, []).append((row.number, row.expires))
            found = connection.execute(select(IDENTITIES).order_by(_i.identity)).all()
        facts = []
        for row in found:
            numbers = tuple(number for number, _ in tokens.get(row.identity, []))
            ends = [expires for _, expires in tokens.get(row.identity, [])]
            last = None if not ends or None in ends else max(end for end in ends if end is not None)
            facts.append(IdentityFacts(row.identity, row.created, row.revoked, numbers, last))
        return facts

    def snapshot(self, known: Snapshot) -> Snapshot:
        """Return who may call now; the known state itself if nothing has changed.

        Raises:
            StorageError: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return known
        with self._ledger.reading() as connection:
            version = connection.execute(select(_v.number).where(_v.name == _NAME)).scalar() or 0
            if version == known.version:
                return known
            tokens = connection.execute(select(_t.digest, _t.identity, _t.expires).where(_t.revoked.is_(None)))
            by_digest = {row.digest: (row.identity, row.expires) for row in tokens}
            revoked = connection.execute(select(_i.identity).where(_i.revoked.is_not(None))).scalars()
            return Snapshot(version, by_digest, frozenset(revoked))


def _add(connection: Connection, identity: str) -> str | None:
    """Add an identity, or restore a revoked one; return why that cannot be, if it cannot."""
    if not identity or len(identity) > 1000 or not identity.isprintable():
        return "an identity is 1 to 1,000 printable characters; give another name"
    found = connection.execute(select(_i.revoked).where(_i.identity == identity)).first()
    if found is not None and found.revoked is None:
        return f"there is an identity {identity!r} already; use: identity rotate"
    if found is None:
        connection.execute(IDENTITIES.insert().values(identity=identity, created=time.time()))
    else:
        connection.execute(update(IDENTITIES).where(_i.identity == identity).values(revoked=None))
    return None


def _add_token(connection: Connection, identity: str, token: str, now: float, expires: float | None) -> int:
    digest = token_digest(token)
    connection.execute(TOKENS.insert().values(identity=identity, digest=digest, created=now, expires=expires))
    return int(connection.execute(select(_t.number).where(_t.digest == digest)).scalar_one())


def _require(connection: Connection, identity: str) -> None:
    valid = and_(_i.identity == identity, _i.revoked.is_(None))
    if not connection.execute(select(func.count()).select_from(IDENTITIES).where(valid)).scalar_one():
        raise NotFoundError(f"there is no identity {identity[:200]!r} that is valid; use: sealign-server identity add")


def _changed(connection: Connection) -> None:
    """Note that processes must read identities again."""
    if not connection.execute(update(VERSIONS).where(_v.name == _NAME).values(number=_v.number + 1)).rowcount:
        connection.execute(VERSIONS.insert().values(name=_NAME, number=1))
