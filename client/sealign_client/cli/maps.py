"""``sealign maps``: which maps this client uses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sealign.app.terminal import print_table
from sealign.errors import InvalidInputError
from sealign.protocol import Placement
from sealign_client.cli.common import AsJson, MapDirectory
from sealign_client.local.directory import maps_directory
from sealign_client.local.maps import ClientMaps, Pin

app = typer.Typer(
    help="List, show, delete and export the maps that this client uses.", no_args_is_help=True, rich_markup_mode=None
)
MapId = Annotated[str, typer.Argument(metavar="ID", help="Id of the map, or its beginning.")]


@app.command("list")
def list_maps(map_directory: MapDirectory = None, as_json: AsJson = False) -> None:
    """List the maps in use, the newest first."""
    pins = list(_maps(map_directory).pins())
    if as_json:
        typer.echo(json.dumps([_document(pin) for pin in pins], indent=2))
        return
    columns = ("map", "silo", "space", "applied at", "explained variance", "created")
    print_table(
        columns,
        (
            (
                pin.card.id[:12],
                pin.lane.silo,
                pin.lane.space,
                pin.placement.value,
                f"{pin.card.explained_variance:.4f}",
                pin.card.created,
            )
            for pin in pins
        ),
    )


@app.command()
def show(name: MapId, map_directory: MapDirectory = None, as_json: AsJson = True) -> None:
    """Show one map, always as JSON."""
    del as_json
    typer.echo(json.dumps(_document(_maps(map_directory).find(name)), indent=2))


@app.command()
def delete(name: MapId, map_directory: MapDirectory = None, as_json: AsJson = False) -> None:
    """Delete a map. A map that the silo applies is only unpinned: the next use takes the silo's newest."""
    maps = _maps(map_directory)
    pin = maps.find(name)
    maps.delete(pin)
    typer.echo(json.dumps({"deleted": pin.card.id}) if as_json else f"deleted map {pin.card.id}")


@app.command()
def export(
    name: MapId,
    output: Annotated[Path, typer.Option(help="safetensors file to write.")],
    map_directory: MapDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Write a map that this client applies to a file."""
    maps = _maps(map_directory)
    pin = maps.find(name)
    if pin.placement is not Placement.CLIENT:
        raise InvalidInputError(f"The silo holds map {pin.card.id}; there is nothing here to export.")
    maps.load(pin).save(output)
    typer.echo(json.dumps({"map": pin.card.id, "output": str(output)}) if as_json else f"wrote {output}")


def _maps(directory: Path | None) -> ClientMaps:
    return ClientMaps(maps_directory(directory))


def _document(pin: Pin) -> dict[str, Any]:
    return {**asdict(pin), "placement": pin.placement.value}
