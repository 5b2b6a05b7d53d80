"""``sealign keys``: secret keys that are stored between runs."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from sealign.app.terminal import print_table
from sealign.errors import InvalidInputError, StorageError
from sealign_client.cli.common import AsJson
from sealign_client.local.keys import KeyStore

_VARIABLE = "SEALIGN_CLIENT_KEY_PASSPHRASE"

app = typer.Typer(help="List, rotate and delete stored secret keys.", no_args_is_help=True, rich_markup_mode=None)
Directory = Annotated[
    Path | None,
    typer.Option("--key-directory", envvar="SEALIGN_CLIENT_KEY_DIRECTORY", help="Directory of stored keys."),
]


@app.command("list")
def list_keys(key_directory: Directory = None, as_json: AsJson = False) -> None:
    """List stored keys: parameter set, replies counted, and age."""
    rows = [_row(path) for path in _paths(key_directory)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_table(("parameters", "replies counted", "passphrase", "written"), (tuple(row.values()) for row in rows))


@app.command()
def rotate(key_directory: Directory = None, as_json: AsJson = False) -> None:
    """Replace stored keys with new ones. End the clients that use them first: they write back the keys they hold.

    Keys under a passphrase need it in SEALIGN_CLIENT_KEY_PASSPHRASE, and the new ones are under it too.
    """
    from sealign.ckks import SecretKey

    paths, passphrase = _paths(key_directory), os.environ.get(_VARIABLE) or None
    held = [(path, SecretKey.load(path, passphrase).parameters) for path in paths]  # all can be opened, or none changes
    for path, parameters in held:
        SecretKey.generate(parameters).save(path, passphrase)
    _report("rotated", [parameters.name for _, parameters in held], as_json)


@app.command()
def delete(key_directory: Directory = None, as_json: AsJson = False) -> None:
    """Delete stored keys. Replies under way cannot be decrypted any more."""
    paths = _paths(key_directory)
    for path in paths:
        path.unlink(missing_ok=True)
    _report("deleted", [path.stem for path in paths], as_json)


def _report(done: str, names: list[str], as_json: bool) -> None:
    typer.echo(json.dumps({done: names}) if as_json else f"{done} {len(names)} keys")


def _paths(directory: Path | None) -> list[Path]:
    if directory is None:
        raise InvalidInputError(
            "Keys are stored only with --key-directory (SEALIGN_CLIENT_KEY_DIRECTORY); otherwise they live as long as "
            "the client."
        )
    return list(KeyStore(directory).paths())


def _row(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
        return {
            "parameters": str(document["parameters"]),
            "replies": int(document["replies"]),
            "passphrase": "yes" if document.get("salt") else "no",
            "written": written.isoformat(timespec="seconds"),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"The key file {path} is damaged. Delete it, and a new key is made.") from error
