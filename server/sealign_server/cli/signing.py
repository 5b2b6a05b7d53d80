"""Commands about the key that signs the silo's cards and its audit trail."""

from __future__ import annotations

import typer

from sealign_server.cli.arguments import Directory

signing_key = typer.Typer(
    help="The key that signs cards, which clients pin, and the audit trail.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(signing_key, name="signing-key")


@signing_key.command()
def show(directory: Directory) -> None:
    """Print the public key, 64 hexadecimal digits. Give it to clients, who compare it or set silo_key to it."""
    from sealign_server.store import SiloStore

    typer.echo(SiloStore(directory).signing.public.hex())


@signing_key.command()
def rotate(directory: Directory) -> None:
    """Make a new key, which the present one signs, and print it. A silo that serves uses it at once.

    Clients that pinned the present key follow by themselves. Those that were given it as silo_key do so too, as long as
    the silo remembers how its keys came after one another: the last 64 changes.
    """
    from sealign_server.cli.ledgers import record
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    record(store, "signing key", "", before=store.signing.public.hex())
    typer.echo(store.signing.rotate().hex())
