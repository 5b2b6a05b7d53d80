"""Cross-covariances that the silo has released over its public sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

import structlog
from sqlalchemy import Connection, Row, select, update

from sealign.alignment import TEXTS_PER_DIMENSION
from sealign.errors import NotFoundError, ReleaseRefusedError, StorageError
from sealign.protocol import PublicSetCard
from sealign_server.ledger.database import RELEASES, Ledger

_log = structlog.get_logger()
_t = RELEASES.c


@dataclass(frozen=True)
class Release:
    """One cross-covariance: who asked, over which public set, for which encoder.

    Attributes:
        space: that it was aligned with.
        rows: of the public set.
        dimension: rows of the product: the encoder's dimension, and check rows.
        base: the public set that shared examples have joined to make this one; None for others.
        created, number: given by the ledger.
    """

    space: str
    public_set: str
    encoder: str
    identity: str
    rows: int
    dimension: int
    base: str | None = None
    created: str = ""
    number: int = 0


class Releases:
    """Counts cross-covariances, one for each public set, encoder and identity, unless more are allowed.

    A public set and those that shared examples have made of it count as one: they hold the same embeddings. An
    encoder's fingerprint is what the client says. So that invented encoders win nothing, the dimensions released to
    one identity over one set are limited as well: to a quarter of its texts for each release allowed.

    Args:
        ledger: holds them.
        allowed: releases for each public set, encoder and identity.
    """

    def __init__(self, ledger: Ledger, allowed: int = 1) -> None:
        self._ledger = ledger
        self._allowed = allowed

    def left(self, release: Release) -> int:
        """Return how many more like this one are allowed; of an unknown dimension (0), by their number alone.

        Raises:
            StorageError: the ledger cannot be read.
        """
        same = dimensions = 0
        if not self._ledger.is_empty:
            with self._ledger.reading() as connection:
                same, dimensions = _earlier(connection, release)
        left = self._allowed - same
        if release.dimension:
            left = min(left, (self._allowed * release.rows // TEXTS_PER_DIMENSION - dimensions) // release.dimension)
        return max(0, left)

    def counted(self, cards: Sequence[PublicSetCard], asked: Release) -> tuple[PublicSetCard, ...]:
        """Return cards of public sets with what is left for an encoder of an identity.

        A ledger that cannot be read is logged; the cards then stay as they are, since that is no reason not to serve.
        """
        try:
            return tuple(
                replace(s, releases_left=self.left(replace(asked, public_set=s.digest, rows=s.rows, base=s.base)))
                for s in cards
            )
        except StorageError as error:
            _log.error("releases cannot be counted", reason=str(error))
            return tuple(cards)

    def require_open(self, release: Release) -> None:
        """Refuse early what :meth:`record` would refuse.

        Raises:
            ReleaseRefusedError: nothing more is released to this identity over this set.
            StorageError: the ledger cannot be read.
        """
        with self._ledger.reading() as connection:
            self._check(connection, release)

    def record(self, release: Release, session: str | None = None) -> bool:
        """Count a release, durably, before any of it is sent, and return whether it was counted now.

        Args:
            release: what is about to leave.
            session: its name; a release that was counted under this name is not counted again.

        Raises:
            ReleaseRefusedError: nothing more is released to this identity over this set.
            StorageError: the ledger cannot be written; nothing may be released.
        """
        with self._ledger.transaction() as connection:
            if session and connection.execute(select(_t.number).where(_t.session == session)).first():
                return False
            self._check(connection, release)
            values = {
                "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "space": release.space,
                "public_set": release.public_set,
                "base": release.base or release.public_set,
                "encoder": release.encoder,
                "identity": release.identity,
                "rows": release.rows,
                "dimension": release.dimension,
                "session": session,
                "granted_again": 0,
            }
            connection.execute(RELEASES.insert().values(values))
            return True

    def all(self) -> list[Release]:
        """Return all releases that count, the oldest first.

        Raises:
            StorageError: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        with self._ledger.reading() as connection:
            found = connection.execute(select(RELEASES).where(_t.granted_again == 0).order_by(_t.number))
            return [_release(row) for row in found]

    def counting(self, number: int) -> Release:
        """Return a release that counts, by its number.

        Raises:
            NotFoundError: there is no such release that counts.
            StorageError: the ledger cannot be read.
        """
        with self._ledger.reading() as connection:
            return _counting(connection, number)

    def grant(self, number: int) -> Release:
        """Let a release be made once more, whose result was never delivered: it stays recorded and does not count.

        Raises:
            NotFoundError: there is no such release that counts.
            StorageError: the ledger cannot be written.
        """
        with self._ledger.transaction() as connection:
            granted = _counting(connection, number)
            connection.execute(update(RELEASES).where(_t.number == number).values(granted_again=1))
            return granted

    def _check(self, connection: Connection, release: Release) -> None:
        same, dimensions = _earlier(connection, release)
        dimensions += release.dimension
        if same >= self._allowed:
            raise ReleaseRefusedError(
                f"the silo has released {same} cross-covariance(s) over this public set for this encoder to this "
                "client, which is all it allows. Use the map that was learned, or ask the silo's operator to grant "
                "another release (sealign-server release grant)."
            )
        if TEXTS_PER_DIMENSION * dimensions > self._allowed * release.rows:
            raise ReleaseRefusedError(
                f"with this release the silo would have released {dimensions} dimensions over this public set of "
                f"{release.rows} texts to this client, more than a quarter of the texts. Use a larger public set, or "
                "ask the silo's operator to raise --max-releases."
            )


def _counting(connection: Connection, number: int) -> Release:
    row = connection.execute(select(RELEASES).where(_t.number == number, _t.granted_again == 0)).first()
    if row is None:
        raise NotFoundError(f"there is no release {number}; see: sealign-server release list DIRECTORY")
    return _release(row)


def _release(row: Row[tuple[object, ...]]) -> Release:
    values = row._mapping
    base = None if values["base"] == values["public_set"] else values["base"]
    names = ("space", "public_set", "encoder", "identity", "rows", "dimension", "created", "number")
    return Release(**{name: values[name] for name in names}, base=base)


def _earlier(connection: Connection, release: Release) -> tuple[int, int]:
    """Return releases to this identity over this set for the same encoder, and dimensions of those for any encoder."""
    earlier = connection.execute(
        select(_t.encoder, _t.dimension).where(
            _t.space == release.space,
            _t.base == (release.base or release.public_set),
            _t.identity == release.identity,
            _t.granted_again == 0,
        )
    ).all()
    return sum(encoder == release.encoder for encoder, _ in earlier), sum(dimension for _, dimension in earlier)
