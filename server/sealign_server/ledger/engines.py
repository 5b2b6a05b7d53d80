"""The databases that can hold a ledger: a private SQLite file, or PostgreSQL; nothing else knows which it is."""

from __future__ import annotations

import os
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sealign.errors import InvalidInputError, StorageError

WAIT_SECONDS = 10
"""For the lock of another process, a connection, or the answer of a database."""

_READS = {"sealign_reads": True}
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

# A process that is stopped, or cut off, within a transaction keeps others waiting for so long and no longer. A commit
# is durable, whatever the database does by default. All holds for this transaction alone, so that a pooler between
# gives nobody else's settings.
_ALONE = text(
    f"SELECT set_config('lock_timeout', '{WAIT_SECONDS}s', true), "
    f"set_config('idle_in_transaction_session_timeout', '{WAIT_SECONDS}s', true), "
    "set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true), "
    "pg_advisory_xact_lock(:key)"
)
_CONNECTING = {
    "connect_timeout": WAIT_SECONDS // 2,
    "keepalives_idle": WAIT_SECONDS,
    "keepalives_interval": WAIT_SECONDS // 3,
    "keepalives_count": 3,
    "tcp_user_timeout": WAIT_SECONDS * 1000,
    "application_name": "sealign",
}


def require_usable_url(url: str) -> None:
    """Refuse a URL of a database that cannot hold a ledger.

    Raises:
        InvalidInputError: it is malformed, of another kind than PostgreSQL, or the driver is not installed.
    """
    try:
        kind = make_url(url).drivername
    except ArgumentError:
        kind = ""
    if kind not in ("postgresql", "postgresql+psycopg"):  # the URL holds a password, and is not repeated
        raise InvalidInputError(
            "The ledger's URL names no PostgreSQL database. Give postgresql://USER:PASSWORD@HOST/DATABASE, or nothing "
            "for a file in the silo's directory."
        )
    if find_spec("psycopg") is None:
        raise InvalidInputError("A ledger on PostgreSQL needs its driver. Run: pip install 'sealign[postgresql]'")


def postgresql_engine(url: str) -> Engine:
    """Return an engine for a PostgreSQL database; what the URL says of connections goes before what is said here."""
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    defaults: dict[str, Any] = {name: value for name, value in _CONNECTING.items() if name not in parsed.query}
    return create_engine(
        parsed,
        pool_pre_ping=True,
        pool_timeout=WAIT_SECONDS,
        isolation_level="READ COMMITTED",  # reads see what was committed before the lock was had
        hide_parameters=True,
        connect_args=defaults | {"prepare_threshold": None},  # poolers may change the server between transactions
    )


def sqlite_engine(path: Path) -> Engine:
    """Return an engine for a private file.

    Raises:
        StorageError: it cannot be opened.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StorageError(f"could not open the ledger {path}: {error.strerror}") from error
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": float(WAIT_SECONDS), "isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: object, _: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("sealign_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def lock(connection: Connection, scope: str) -> None:
    """Wait until no other process is in a transaction of the same scope. SQLite has seen to it already: of any."""
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(sha256(f"sealign {scope}".encode()).digest()[:8], "big", signed=True)
        connection.execute(_ALONE, {"key": key})


def reading_options(engine: Engine) -> dict[str, Any]:
    """Return options of a connection that reads one state of the database and locks nothing."""
    return _SNAPSHOT if engine.dialect.name == "postgresql" else _READS


def passes(error: SQLAlchemyError) -> bool:
    """Return whether a fault is one that passes by itself: a database that restarts, or is cut off or busy."""
    on_server = "psycopg" in type(getattr(error, "orig", None)).__module__
    return isinstance(error, PoolTimeoutError) or (on_server and isinstance(error, (InterfaceError, OperationalError)))
