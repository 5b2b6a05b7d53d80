"""Commands that say who may call: identity add, import, list, revoke, rotate."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealign_server.cli.arguments import AsJson, Directory
from sealign_server.cli.ledgers import LedgerUrl, opened_ledger, record, record_all

if TYPE_CHECKING:
    from sealign_server.ledger import IdentityRegister

identities = typer.Typer(help="Who may call, and the tokens that show it.", no_args_is_help=True, rich_markup_mode=None)

_DAY = 86400.0

Name = Annotated[
    str, typer.Argument(metavar="IDENTITY", help="Its name; for certificates the subject, as in CN=client,O=acme.")
]
Days = Annotated[float, typer.Option(min=0.001, max=3660, help="Days until the token expires.")]


def add_to(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(identities, name="identity")


@identities.command("add")
def add(
    directory: Directory,
    identity: Name,
    token: Annotated[bool, typer.Option(help="Make a token, and print it this once.")] = True,
    days: Days = 90.0,
    ledger: LedgerUrl = None,
) -> None:
    """Add an identity, or restore a revoked one, and print its token."""
    from sealign_server.ledger import IdentityRegister
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    register = IdentityRegister(opened_ledger(store, ledger))
    record(store, "identity", identity, deed="add")
    register.add(identity)
    if token:
        _issue(register, identity, days, None)


@identities.command("import")
def import_identities(
    directory: Directory,
    file: Annotated[
        Path, typer.Argument(help="CSV with the header identity[,days], or JSON lines with these keys; .csv or .jsonl.")
    ],
    tokens: Annotated[
        Path | None, typer.Option(help="File for the tokens, CSV, mode 0600; without it the identities get none.")
    ] = None,
    days: Days = 90.0,
    ledger: LedgerUrl = None,
) -> None:
    """Add many identities, or none of them if one cannot be added."""
    from sealign_server.cli.importing import newcomers_of, tokens_written
    from sealign_server.ledger import IdentityRegister
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    register = IdentityRegister(opened_ledger(store, ledger))
    newcomers = newcomers_of(file, days * _DAY, with_tokens=tokens is not None)
    record_all(store, "identity", [newcomer.identity for newcomer in newcomers], deed="import")
    with tokens_written(tokens, newcomers):
        register.add_all(newcomers)
    typer.echo(f"added {len(newcomers)} identities" + ("" if tokens is None else f"; their tokens are in {tokens}"))


@identities.command("rotate")
def rotate(
    directory: Directory,
    identity: Name,
    days: Days = 90.0,
    overlap_hours: Annotated[
        float, typer.Option(min=0, help="Hours for which the identity's earlier tokens stay valid.")
    ] = 24.0,
    ledger: LedgerUrl = None,
) -> None:
    """Print a new token of an identity; its earlier ones expire soon."""
    from sealign_server.ledger import IdentityRegister
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    register = IdentityRegister(opened_ledger(store, ledger))
    record(store, "identity", identity, deed="rotate", overlap_hours=overlap_hours)
    _issue(register, identity, days, overlap_hours * 3600)


@identities.command("revoke")
def revoke(
    directory: Directory,
    identity: Annotated[str | None, typer.Argument(metavar="[IDENTITY]", help="Its name, with all its tokens.")] = None,
    token: Annotated[
        int | None, typer.Option(help="Number of one token to revoke instead, from: identity list.")
    ] = None,
    ledger: LedgerUrl = None,
) -> None:
    """Revoke an identity or a token; silos refuse it within a second, also in calls under way."""
    from sealign.errors import InvalidInputError
    from sealign_server.ledger import IdentityRegister
    from sealign_server.store import SiloStore

    if (identity is None) == (token is None):
        raise InvalidInputError("name an identity, or a token by its number with --token, and not both")
    store = SiloStore(directory)
    register = IdentityRegister(opened_ledger(store, ledger))
    if token is not None:
        record(store, "identity", "", deed="revoke", token=token)
        typer.echo(f"revoked token {token} of {register.revoke_token(token)}")
    elif identity is not None:
        record(store, "identity", identity, deed="revoke")
        register.revoke(identity)
        typer.echo(f"revoked {identity}")


@identities.command("list")
def list_identities(directory: Directory, as_json: AsJson = False, ledger: LedgerUrl = None) -> None:
    """List identities that were added or revoked, with the numbers of their valid tokens."""
    from sealign.app.terminal import print_table
    from sealign_server.ledger import IdentityRegister
    from sealign_server.store import SiloStore

    rows = [
        {
            "identity": facts.identity,
            "state": "valid" if facts.revoked is None else "revoked",
            "tokens": list(facts.tokens),
            "added": _time(facts.created),
            "expires": None if facts.expires is None else _time(facts.expires),
        }
        for facts in IdentityRegister(opened_ledger(SiloStore(directory), ledger)).all()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        cells = [
            [", ".join(map(str, v)) if isinstance(v, list) else str(v or "") for v in row.values()] for row in rows
        ]
        print_table(list(rows[0]), cells)
    else:
        typer.echo("none")


def _issue(register: IdentityRegister, identity: str, days: float, overlap: float | None) -> None:
    number, token = register.issue(identity, days * _DAY, overlap=overlap)
    typer.echo(f"token {number}, valid for {days:g} days. It is shown this once:", err=True)
    typer.echo(token)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
