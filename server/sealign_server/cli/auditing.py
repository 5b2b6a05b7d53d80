"""Commands that read the audit trail: verify, export, tail."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealign_server.cli.arguments import Directory

if TYPE_CHECKING:
    from sealign_server.store import AuditRecord

audit = typer.Typer(
    help="What callers and operators did: a chain of records that shows what was changed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_FOLLOW_SECONDS = 0.5

Kind = Annotated[
    str | None, typer.Option(help="Only records of this kind: query, key, alignment, registration, refusal, identity…")
]
Identity = Annotated[str | None, typer.Option(help="Only records of this identity.")]


class Format(str, enum.Enum):
    """Forms of exported records."""

    JSONL = "jsonl"
    CSV = "csv"


def add_to(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(audit, name="audit")


@audit.command("verify")
def verify(
    directory: Directory,
    begins_at: Annotated[int, typer.Option(min=1, help="Number of the first record here, if files were archived.")] = 1,
    expect: Annotated[
        str | None, typer.Option(help="NUMBER:HASH of a record, written down earlier. Finds an end that was cut off.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Signing key, written down earlier; by default as the silo's directory says.")
    ] = None,
) -> None:
    """Check that no record was changed, removed or moved, and print the chain's end."""
    from sealign_server.store import SiloStore, verify_audit

    store = SiloStore(directory)
    keys = store.signing.known(None if key is None else _key(key))
    found = verify_audit(store.audit_path, keys, begins_at=begins_at, expected=_expected(expect))
    typer.echo(f"{found.records} records are intact; those up to {found.signed} are signed")
    if found.torn:
        typer.echo(f"the last {found.torn} bytes are of a record that was being written when its process ended")
    typer.echo(f"the chain ends with {found.number}:{found.digest}")


@audit.command("export")
def export(
    directory: Directory,
    form: Annotated[Format, typer.Option("--format", help="JSON lines as they are stored, or CSV.")] = Format.JSONL,
    since: Annotated[datetime | None, typer.Option(help="Only records from this time on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only records before this time, UTC.")] = None,
    kind: Kind = None,
    identity: Identity = None,
) -> None:
    """Print records, the oldest first."""
    import csv
    import sys

    from sealign_server.store import SiloStore, audit_records

    begin, end = (None if time is None else _utc(time) for time in (since, until))
    found = (
        record
        for record in audit_records(SiloStore(directory).audit_path)
        if (begin is None or record.at >= begin) and (end is None or record.at < end) and _is(record, kind, identity)
    )
    if form is Format.JSONL:
        for record in found:
            typer.echo(record.line.decode(), nl=False)
        return
    table = csv.writer(sys.stdout)
    table.writerow(("number", "at", "kind", "identity", "facts", "hash"))
    for record in found:
        facts = " ".join(f"{name}={value}" for name, value in record.facts.items())
        table.writerow((record.number, record.at, record.kind, record.identity, facts, record.digest))


@audit.command("tail")
def tail(
    directory: Directory,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Number of records.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new records until Ctrl-C.")] = False,
    kind: Kind = None,
    identity: Identity = None,
) -> None:
    """Print the newest records."""
    from sealign_server.store import SiloStore

    trail, seen = SiloStore(directory).audit_path, 0
    newest: deque[AuditRecord] = deque(maxlen=lines)
    for record in _after(trail, seen):
        seen = record.number
        if _is(record, kind, identity):
            newest.append(record)
    for record in newest:
        _show(record)
    while follow:
        time.sleep(_FOLLOW_SECONDS)
        for record in _after(trail, seen):
            seen = record.number
            if _is(record, kind, identity):
                _show(record)


def _after(trail: Path, number: int) -> Iterator[AuditRecord]:
    from sealign_server.store import audit_records

    return (record for record in audit_records(trail, number) if record.number > number)


def _is(record: AuditRecord, kind: str | None, identity: str | None) -> bool:
    return kind in (None, record.kind) and identity in (None, record.identity)


def _show(record: AuditRecord) -> None:
    from sealign.app.terminal import visible

    facts = " ".join(f"{name}={value}" for name, value in record.facts.items())
    typer.echo(visible(f"{record.number} {record.at} {record.kind} {record.identity or '-'} {facts}"))


def _expected(text: str | None) -> tuple[int, str] | None:
    from sealign.errors import InvalidInputError

    if text is None:
        return None
    number, _, digest = text.partition(":")
    if not number.isdigit() or len(digest) != 64:
        raise InvalidInputError("--expect takes NUMBER:HASH, as audit verify prints the end of the chain")
    return int(number), digest


def _key(text: str) -> bytes:
    from sealign.errors import InvalidInputError
    from sealign.protocol.signing import KEY_BYTES

    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidInputError("--key takes 64 hexadecimal digits, as sealign-server signing-key show prints them")
    return key


def _utc(time: datetime) -> str:
    return time.replace(tzinfo=time.tzinfo or timezone.utc).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
