"""``sealign silo-keys``: signing keys of silos that this client has pinned."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sealign.app.terminal import print_table
from sealign_client.cli.common import AsJson, MapDirectory
from sealign_client.local.directory import maps_directory
from sealign_client.local.silo_keys import SiloKeys

app = typer.Typer(
    help="List and delete the signing keys of silos that this client has pinned.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_keys(map_directory: MapDirectory = None, as_json: AsJson = False) -> None:
    """List pinned keys, by the address of their silo."""
    found = [asdict(pinned) for pinned in _keys(map_directory).all()]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_table(("silo", "key", "pinned"), (tuple(pinned.values()) for pinned in found))


@app.command()
def delete(
    silo: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Address of the silo.")],
    map_directory: MapDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Delete a pinned key: the next use pins the key that the silo then has. Ask its operator before you do."""
    _keys(map_directory).delete(silo)
    typer.echo(json.dumps({"deleted": silo}) if as_json else f"deleted the key of the silo at {silo}")


def _keys(directory: Path | None) -> SiloKeys:
    return SiloKeys(maps_directory(directory))
