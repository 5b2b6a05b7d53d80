"""What the silo has released over its public sets: a durable count, shared by all its processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import structlog

from sealign.alignment import TEXTS_PER_DIMENSION
from sealign.errors import ReleaseRefusedError, StorageError
from sealign.protocol import PublicSetCard

_log = structlog.get_logger()

_SCHEMA = """
CREATE TABLE IF NOT EXISTS releases (
    created TEXT NOT NULL, public_set TEXT NOT NULL, base TEXT NOT NULL, encoder TEXT NOT NULL, client TEXT NOT NULL,
    rows INTEGER NOT NULL, dimension INTEGER NOT NULL, session TEXT UNIQUE
)
"""


@dataclass(frozen=True)
class Release:
    """One cross-covariance: who asked, over which public set, for which encoder of which dimension.

    Attributes:
        base: the public set that released texts have joined to make this one; empty for others.
    """

    public_set: str
    encoder: str
    client: str
    rows: int
    dimension: int
    base: str = ""
    created: str = ""


class ReleaseLedger:
    """Counts cross-covariances, one for each public set, encoder and client, unless more are allowed.

    A public set and those that released texts have made of it count as one: they hold the same embeddings. An
    encoder's fingerprint is what the client says. So that invented encoders win nothing, the dimensions released to
    one client over one set are limited as well: to a quarter of its texts for each release allowed.

    Args:
        path: SQLite file; made when it is missing.
        allowed: releases for each public set, encoder and client.
    """

    def __init__(self, path: Path, allowed: int = 1) -> None:
        self._path = path
        self._allowed = allowed

    def left(self, release: Release) -> int:
        """How many more releases like this one are allowed; of an unknown dimension (0), by their number alone.

        Raises:
            StorageError: the ledger cannot be read.
        """
        same = dimensions = 0
        if self._path.exists():
            with self._transaction("BEGIN") as database:
                same, dimensions = _earlier(database, release)
        left = self._allowed - same
        if release.dimension:
            left = min(left, (self._allowed * release.rows // TEXTS_PER_DIMENSION - dimensions) // release.dimension)
        return max(0, left)

    def counted(
        self, cards: Sequence[PublicSetCard], encoder: str, dimension: int, client: str
    ) -> tuple[PublicSetCard, ...]:
        """Cards of public sets with what is left for an encoder of a client; a ledger that cannot be read is logged.

        Such a ledger is no reason not to classify or generate: the cards then stay as they are.
        """
        try:
            return tuple(
                replace(s, releases_left=self.left(Release(s.digest, encoder, client, s.rows, dimension, s.base)))
                for s in cards
            )
        except StorageError as error:
            _log.error("releases cannot be counted", reason=str(error))
            return tuple(cards)

    def require_open(self, release: Release) -> None:
        """Refuse early what :meth:`record` would refuse.

        Raises:
            ReleaseRefusedError: nothing more is released to this client over this set.
            StorageError: the ledger cannot be read.
        """
        with self._transaction() as database:
            self._check(database, release)

    def record(self, release: Release, session: str | None = None) -> bool:
        """Count a release, durably, before any of it is sent.

        Args:
            release: what is about to leave.
            session: its name; a release that was counted under this name is not counted again.

        Returns:
            Whether it was counted now.

        Raises:
            ReleaseRefusedError: nothing more is released to this client over this set.
            StorageError: the ledger cannot be written; nothing may be released.
        """
        with self._transaction() as database:
            if session and database.execute("SELECT 1 FROM releases WHERE session = ?", (session,)).fetchone():
                return False
            self._check(database, release)
            created = datetime.now(timezone.utc).isoformat(timespec="seconds")
            database.execute(
                "INSERT INTO releases (created, public_set, base, encoder, client, rows, dimension, session) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(created, release.public_set, release.base, release.encoder, release.client),
                    *(release.rows, release.dimension, session),
                ),
            )
            return True

    def releases(self) -> list[Release]:
        """All releases, oldest first."""
        if not self._path.exists():
            return []
        with self._transaction("BEGIN") as database:
            query = "SELECT public_set, encoder, client, rows, dimension, base, created FROM releases ORDER BY created"
            return [Release(*row) for row in database.execute(query)]

    def _check(self, database: sqlite3.Connection, release: Release) -> None:
        same, dimensions = _earlier(database, release)
        dimensions += release.dimension
        if same >= self._allowed:
            raise ReleaseRefusedError(
                f"the silo has released {same} cross-covariance(s) over this public set for this encoder to this "
                "client, which is all it allows. Use the map that was learned, or ask the silo's operator to raise "
                "max_releases."
            )
        if TEXTS_PER_DIMENSION * dimensions > self._allowed * release.rows:
            raise ReleaseRefusedError(
                f"with this release the silo would have released {dimensions} dimensions over this public set of "
                f"{release.rows} texts to this client, more than a quarter of the texts. Use a larger public set, or "
                "ask the silo's operator to raise max_releases."
            )

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self._path, timeout=10.0, isolation_level=None)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.execute(begin)
                database.execute(_SCHEMA)
                yield database
                database.execute("COMMIT")
            finally:
                database.close()  # rolls back what was not committed
        except sqlite3.Error as error:
            raise StorageError(
                f"the ledger of releases {self._path} cannot be used ({error}); nothing was released. Free disk space "
                "or fix permissions, then try again."
            ) from error


def _earlier(database: sqlite3.Connection, release: Release) -> tuple[int, int]:
    """Releases to this client over this set for the same encoder, and the dimensions of those for any encoder."""
    query = (
        "SELECT encoder, dimension FROM releases "
        "WHERE CASE base WHEN '' THEN public_set ELSE base END = ? AND client = ?"
    )
    earlier = database.execute(query, (release.base or release.public_set, release.client)).fetchall()
    return sum(encoder == release.encoder for encoder, _ in earlier), sum(dimension for _, dimension in earlier)
