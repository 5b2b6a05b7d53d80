"""What the silo has released over its public sets: a durable count, shared by all its processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from sealign.alignment import TEXTS_PER_DIMENSION
from sealign.errors import ReleaseRefusedError, StorageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS releases (
    created TEXT NOT NULL, public_set TEXT NOT NULL, encoder TEXT NOT NULL, client TEXT NOT NULL,
    rows INTEGER NOT NULL, dimension INTEGER NOT NULL
)
"""


@dataclass(frozen=True)
class Release:
    """One cross-covariance: who asked, over which public set, for which encoder of which dimension."""

    public_set: str
    encoder: str
    client: str
    rows: int
    dimension: int
    created: str = ""


class ReleaseLedger:
    """Counts cross-covariances, one for each public set, encoder and client, unless more are allowed.

    An encoder's fingerprint is what the client says. So that invented encoders win nothing, the dimensions
    released to one client over one set are limited as well: to a quarter of its texts for each release allowed.

    Args:
        path: SQLite file; made when it is missing.
        allowed: releases for each public set, encoder and client.
    """

    def __init__(self, path: Path, allowed: int = 1) -> None:
        self._path = path
        self._allowed = allowed

    def require_open(self, release: Release) -> None:
        """Refuse early what :meth:`record` would refuse.

        Raises:
            ReleaseRefusedError: nothing more is released to this client over this set.
            StorageError: the ledger cannot be read.
        """
        with self._transaction() as database:
            self._check(database, release)

    def record(self, release: Release) -> None:
        """Count a release, durably, before any of it is sent.

        Raises:
            ReleaseRefusedError: nothing more is released to this client over this set.
            StorageError: the ledger cannot be written; nothing may be released.
        """
        with self._transaction() as database:
            self._check(database, release)
            created = datetime.now(timezone.utc).isoformat(timespec="seconds")
            database.execute(
                "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?)",
                (created, release.public_set, release.encoder, release.client, release.rows, release.dimension),
            )

    def releases(self) -> list[Release]:
        """All releases, oldest first."""
        if not self._path.exists():
            return []
        with self._transaction() as database:
            query = "SELECT public_set, encoder, client, rows, dimension, created FROM releases ORDER BY created"
            return [Release(*row) for row in database.execute(query)]

    def _check(self, database: sqlite3.Connection, release: Release) -> None:
        query = "SELECT encoder, dimension FROM releases WHERE public_set = ? AND client = ?"
        earlier = database.execute(query, (release.public_set, release.client)).fetchall()
        same = sum(encoder == release.encoder for encoder, _ in earlier)
        dimensions = release.dimension + sum(dimension for _, dimension in earlier)
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
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self._path, timeout=10.0, isolation_level=None)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.execute("BEGIN IMMEDIATE")
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
