"""The ledger's database: schema, and transactions, of which those of one scope happen one after the other."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock

from sqlalchemy import Column, Connection, Engine, Float, Index, Integer, MetaData, String, Table
from sqlalchemy.exc import SQLAlchemyError

from sealign.errors import StorageError
from sealign_server.ledger.engines import (
    lock,
    passes,
    postgresql_engine,
    reading_options,
    require_usable_url,
    sqlite_engine,
)

METADATA = MetaData()

RELEASES = Table(
    "releases",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("created", String, nullable=False),
    Column("space", String, nullable=False),
    Column("public_set", String, nullable=False),
    Column("base", String, nullable=False),  # the public set that shared examples have joined, or the set itself
    Column("encoder", String, nullable=False),
    Column("identity", String, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("session", String, unique=True),
    Column("granted_again", Integer, nullable=False, default=0),
    Index("releases_by_identity", "space", "base", "identity"),
)

MAKINGS = Table(
    "makings",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),  # seconds since 1970, UTC
    Column("kind", String, nullable=False),
    Column("space", String, nullable=False),
    Column("encoder", String, nullable=False),
    Column("identity", String, nullable=False),
    Index("makings_by_identity", "identity", "at"),
)

PRIVATE_VOTES = Table(
    "private_votes",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("created", String, nullable=False),
    Column("task", String, nullable=False),
    Column("rounds", Integer, nullable=False),
    Column("scale", Float, nullable=False),  # of the noise on each count
)

USAGE = Table(
    "usage",
    METADATA,
    Column("identity", String, primary_key=True),
    Column("task", String, primary_key=True),
    Column("encoder", String, primary_key=True),
    Column("hour", Integer, primary_key=True, autoincrement=False),  # hours since 1970
    Column("rows", Integer, nullable=False),
)

IDENTITIES = Table(
    "identities",
    METADATA,
    Column("identity", String, primary_key=True),
    Column("created", Float, nullable=False),  # seconds since 1970, UTC, as all times below
    Column("revoked", Float),
)

TOKENS = Table(
    "tokens",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("identity", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),  # SHA-256 of the token, which is random
    Column("created", Float, nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
    Index("tokens_by_identity", "identity"),
)

VERSIONS = Table(
    "versions",
    METADATA,
    Column("name", String, primary_key=True),
    Column("number", Integer, nullable=False),
)


class Ledger:
    """A database that all processes of a silo share.

    Args:
        path: file of a SQLite database, made when something is written.
        url: of a PostgreSQL database in its place.

    Raises:
        InvalidInputError: the URL is of no such database, or its driver is not installed.
    """

    def __init__(self, path: Path, url: str | None = None) -> None:
        if url is not None:
            require_usable_url(url)
        self._path = path
        self._url = url
        self._engine: Engine | None = None
        self._making = Lock()

    @property
    def is_empty(self) -> bool:
        """Whether nothing has ever been written; looks at no database but a file's name."""
        return self._url is None and self._engine is None and not self._path.exists()

    @contextmanager
    def transaction(self, scope: str = "") -> Iterator[Connection]:
        """Yield a connection, alone in its scope among all processes; committed durably at the end, or not at all.

        Args:
            scope: of rows that no transaction of another scope writes, nor reads to decide what it writes.

        Raises:
            StorageError: the database cannot be used, or not at the moment; nothing was granted.
        """
        try:
            with self._opened().begin() as connection:
                lock(connection, scope)
                yield connection
        except SQLAlchemyError as error:
            raise self._fault(error, "used", "; nothing was granted") from error

    def copy_to(self, path: Path) -> None:
        """Write a copy of the file to a path, as of one moment; nothing where it is empty, or another database.

        Raises:
            StorageError: it cannot be read, or the copy cannot be written.
        """
        if self.is_empty or self._url is not None:
            return
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            with closing(sqlite3.connect(self._path)) as own, closing(sqlite3.connect(path)) as copy:
                own.backup(copy)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"the ledger {self._path} cannot be copied ({error}); try again") from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that reads one state of the database, and waits for nobody.

        Raises:
            StorageError: the database cannot be read.
        """
        try:
            engine = self._opened()
            with engine.connect().execution_options(**reading_options(engine)) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise self._fault(error, "read") from error

    def close(self) -> None:
        """Close connections; a later use opens them again."""
        with self._making:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    def _opened(self) -> Engine:
        with self._making:
            if self._engine is None:
                engine = sqlite_engine(self._path) if self._url is None else postgresql_engine(self._url)
                with engine.begin() as connection:
                    lock(connection, "")
                    METADATA.create_all(connection)
                self._engine = engine
            return self._engine

    def _fault(self, error: SQLAlchemyError, what: str, effect: str = "") -> StorageError:
        where, mend = f"the ledger {self._path}", "Free disk space or fix permissions, then try again."
        if self._url is not None:
            where, mend = "the ledger's database", "See to the database, then try again."
        reason = f"{type(error).__name__}: {error.args[0] if error.args else ''}".strip()
        return StorageError(
            f"{where} cannot be {what} ({reason}){effect}. {mend}", retry_after=1.0 if passes(error) else None
        )
