"""Commands about a silo's directory as a whole: backup, restore, upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sealign_server.cli.arguments import Directory
from sealign_server.cli.ledgers import LedgerUrl, opened_ledger, record

BackupFile = Annotated[Path, typer.Argument(help="File of the backup.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (backup, restore, upgrade):
        app.command()(command)


def backup(directory: Directory, file: BackupFile, ledger: LedgerUrl = None) -> None:
    """Write the silo to one file, also while it serves.

    The file holds everything but what can be computed again: heads, statistics of private texts, maps, public sets,
    the ledger and the audit trail. Keep it as safe as the silo. A ledger in another database is backed up with that
    database.
    """
    from sealign_server.store import SiloStore
    from sealign_server.store.backup import back_up

    store = SiloStore(directory)
    record(store, "backup", "")
    files = back_up(store, file, opened_ledger(store, ledger).copy_to)
    typer.echo(f"wrote {files} files of silo {store.document.name} to {file}")


def restore(file: BackupFile, directory: Directory) -> None:
    """Make a silo of a backup, in a new directory.

    What was counted after the backup is forgotten with it: rows, releases, maps. Clients that aligned since then align
    again.
    """
    from sealign_server.store.backup import restore as restored

    store = restored(file, directory)
    typer.echo(f"restored silo {store.document.name} to {directory}")


def upgrade(directory: Directory) -> None:
    """Bring a silo to the format of this version of Sealign. Stop the silo and make a backup before."""
    from sealign_server.store.upgrade import upgrade as upgraded

    before, now = upgraded(directory)
    typer.echo(f"the silo has format {now}: nothing to do" if before == now else f"format {before} is now {now}")
