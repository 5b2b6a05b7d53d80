"""A ledger on PostgreSQL: which URLs are taken, and what becomes of work while the database is away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from sealign.errors import BudgetExhaustedError, InvalidInputError, StorageError, UnavailableError
from sealign.protocol.status import sendable
from sealign_server.ledger import Budget, IdentityRegister, Ledger, Snapshot, Usage, UsageKey
from tests.support.postgresql import PostgreSQL

psycopg = pytest.importorskip("psycopg", reason="needs psycopg (extra `postgresql`)")

KEY = UsageKey("CN=a", "topics", "c" * 64)


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "sqlite:///x?secret", "postgresql+psycopg2://h/secret", "secret"]
)
def test_other_databases_are_refused_without_repeating_a_password(url: str) -> None:
    with pytest.raises(InvalidInputError, match="postgresql://USER:PASSWORD@HOST/DATABASE") as caught:
        Ledger(Path("none"), url)
    assert "secret" not in str(caught.value)


def test_a_database_that_is_away_is_waited_for_by_the_caller(database: PostgreSQL) -> None:
    ledger = Ledger(Path("none"), database.fresh())
    Usage(ledger).debit(KEY, 3, 3, Budget(lifetime=10))
    database.stop()
    try:
        for ask in (lambda: Usage(ledger).debit(KEY, 1, 1, Budget()), lambda: Usage(ledger).spent()):
            with pytest.raises(StorageError) as caught:
                ask()
            sent, incident = sendable(caught.value)
            assert isinstance(sent, UnavailableError)
            assert sent.retry_after is not None
            assert incident is not None
            assert str(database.port) not in str(sent)
    finally:
        database.start()
    assert Usage(ledger).debit(KEY, 7, 7, Budget(lifetime=10)) == 7  # on connections that are not those of before
    ledger.close()


def test_a_transaction_is_durable_and_bounded_whatever_the_database_does_by_default(database: PostgreSQL) -> None:
    """A process that is stopped within one would hold all others up for ever."""
    names = (
        *("synchronous_commit", "lock_timeout", "idle_in_transaction_session_timeout"),
        "transaction_isolation",
    )
    url = database.fresh()
    with psycopg.connect(url, autocommit=True) as connection:
        name = url.rpartition("/")[2]
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation TO serializable".encode())
    ledger = Ledger(Path("none"), url)

    def settings(connection: Connection) -> list[str]:
        return [str(connection.execute(text(f"SHOW {name}")).scalar()) for name in names]

    with ledger.transaction() as inside:
        assert settings(inside) == ["on", "10s", "10s", "read committed"]
    with ledger.reading() as inside:
        assert settings(inside) == ["off", "0", "0", "repeatable read"]
    ledger.close()


def test_what_one_process_revokes_another_sees(database: PostgreSQL) -> None:
    url = database.fresh()
    here, there = (IdentityRegister(Ledger(Path("none"), url)) for _ in range(2))
    here.add("acme")
    number, _ = here.issue("acme", 60)
    known = there.snapshot(Snapshot())
    assert [holder for holder, _ in known.tokens.values()] == ["acme"]
    assert there.snapshot(known) is known
    here.revoke_token(number)
    here.revoke("CN=other")
    current = there.snapshot(known)
    assert not current.tokens
    assert current.revoked == {"CN=other"}


def test_one_client_s_lease_waits_for_no_other_client_s(database: PostgreSQL) -> None:
    """A hundred replicas that start at once lease for each of their clients."""
    ledger, unlimited = Ledger(Path("none"), database.fresh()), Budget()
    usage, other = Usage(ledger), KEY._replace(identity="CN=b")
    usage.debit(KEY, 1, 1, unlimited)
    with ThreadPoolExecutor(1) as pool:
        with ledger.transaction(KEY.scope):
            assert usage.debit(other, 1, 1, unlimited) == 1
            assert usage.debit(KEY._replace(task="others"), 1, 1, unlimited) == 1
            mine = pool.submit(usage.debit, KEY._replace(encoder="d" * 64), 1, 1, unlimited)
            assert not wait([mine], timeout=0.5).done
        assert mine.result(timeout=30) == 1
    ledger.close()


def test_one_client_s_leases_at_once_do_not_exceed_its_budget(database: PostgreSQL) -> None:
    ledger = Ledger(Path("none"), database.fresh())
    usage, granted = Usage(ledger), []

    def lease() -> None:
        with suppress(BudgetExhaustedError):
            while True:
                granted.append(usage.debit(KEY, 1, 7, Budget(lifetime=200)))

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(lease) for _ in range(8)]:
            future.result(timeout=60)
    assert sum(granted) == 200 == usage.totals()[0][3]
    ledger.close()
