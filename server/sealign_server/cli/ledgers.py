"""The ledger and the audit trail of a silo, as commands beside `serve` open them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sealign_server.ledger import Ledger
    from sealign_server.store import SiloStore

LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger", envvar="SEALIGN_SILO_LEDGER", help="PostgreSQL URL of the ledger; by default as silo.toml says."
    ),
]


def opened_ledger(store: SiloStore, url: str | None) -> Ledger:
    """Return the ledger that the silo counts in.

    Raises:
        InvalidInputError: silo.toml cannot be read.
    """
    from sealign_server.ledger import Ledger
    from sealign_server.settings import ledger_url

    return Ledger(store.ledger_path, url or ledger_url(store.directory))


def record(store: SiloStore, kind: str, identity: str, **facts: str | int | float) -> None:
    """Record what an operator does, before it is done.

    Raises:
        StorageError: it could not be recorded; it must not be done.
    """
    record_all(store, kind, [identity], **facts)


def record_all(store: SiloStore, kind: str, identities: Iterable[str], **facts: str | int | float) -> None:
    """Record what an operator does to several identities, before it is done.

    Raises:
        StorageError: it could not be recorded; it must not be done.
    """
    import getpass

    from sealign_server.store import AuditTrail

    trail = AuditTrail(store.audit_path, store.signing)
    for identity in identities:
        trail.append(kind, identity, facts | {"by": getpass.getuser()})
    trail.sync()
    trail.close()
