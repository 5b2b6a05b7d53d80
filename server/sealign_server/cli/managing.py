"""Commands that list and remove what a silo holds: map, task, public, release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealign.app.options import public_texts_option
from sealign_server.cli.arguments import AsJson, Directory, SpaceName, TaskName
from sealign_server.cli.info import map_rows, print_rows, public_rows, release_rows
from sealign_server.cli.ledgers import LedgerUrl, opened_ledger, record

if TYPE_CHECKING:
    from sealign.protocol import PublicSetCard
    from sealign_server.store import MapRecord, SpaceStore

_EMBEDDINGS = "embeddings"
_HELP = {"no_args_is_help": True, "rich_markup_mode": None}
maps = typer.Typer(help="Maps that clients have learned, and the operator's, which everybody may use.", **_HELP)  # type: ignore[arg-type]
tasks = typer.Typer(help="Classification tasks; see train.", **_HELP)  # type: ignore[arg-type]
public = typer.Typer(help="Public sets that clients align over.", **_HELP)  # type: ignore[arg-type]
release = typer.Typer(help="Cross-covariances that were released under encrypted alignment.", **_HELP)  # type: ignore[arg-type]

MapStart = Annotated[str, typer.Argument(help="Beginning of the map's id.")]
SetName = Annotated[str, typer.Argument(help="The set's name, or the beginning of its digest.")]


def add_to(app: typer.Typer) -> None:
    """Add the groups of commands."""
    for name, group in (("map", maps), ("task", tasks), ("public", public), ("release", release)):
        app.add_typer(group, name=name)


@maps.command("learn")
def learn(
    directory: Directory,
    encoder: Annotated[str, typer.Option(help="A publicly known client encoder, as clients name it.")],
    texts: Annotated[str, public_texts_option("Public texts that the silo has embedded.")],
    ledger: LedgerUrl = None,
) -> None:
    """Learn a map for a publicly known client encoder; every client may use it, without aligning."""
    from sealign.alignment import PublicSet
    from sealign.app.progress import progress
    from sealign.encoders import EncoderSettings
    from sealign.protocol import EMBEDDINGS
    from sealign_server.cli.learning import learn_map
    from sealign_server.serving.space import Space
    from sealign_server.settings import ServingOptions
    from sealign_server.store import SiloStore

    store, public_set = SiloStore(directory), PublicSet.named(texts)
    space = Space(EMBEDDINGS, store.space, opened_ledger(store, ledger), ServingOptions())
    with progress("embedding", len(public_set)) as advance:
        card = learn_map(space, EncoderSettings.parse(encoder), public_set, advance).card
    typer.echo(f"map {card.id} for encoder {card.encoder}: explained variance {card.explained_variance:.4f}")


@maps.command("list")
def list_maps(directory: Directory, as_json: AsJson = False) -> None:
    """List the maps of all clients."""
    print_rows([row for name, space in _spaces(directory).items() for row in map_rows(name, space)], as_json)


@maps.command("show")
def show_map(directory: Directory, start: MapStart, space: SpaceName = _EMBEDDINGS) -> None:
    """Show a map's card as JSON."""
    found = _space(directory, space)
    record = _chosen(found, start)
    typer.echo(json.dumps(record.model_dump(), indent=2))


@maps.command("remove")
def remove_map(directory: Directory, start: MapStart, space: SpaceName = _EMBEDDINGS) -> None:
    """Remove a map; it stops being served at once, and its client must align again."""
    found = _space(directory, space)
    record = _chosen(found, start)
    found.remove_map(record.identity, record.card.id)
    typer.echo(f"removed map {record.card.id} of {record.identity}")


@tasks.command("list")
def list_tasks(directory: Directory, as_json: AsJson = False) -> None:
    """List the tasks."""
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    print_rows([{"name": name, "description": store.tasks.description(name)} for name in store.tasks.names()], as_json)


@tasks.command("show")
def show_task(directory: Directory, task: TaskName) -> None:
    """Show a task as JSON: labels, measures, thresholds."""
    from sealign_server.store import SiloStore

    stored = SiloStore(directory).tasks.load(task)
    trained = stored.trained
    facts = {
        "name": task,
        "description": stored.description,
        "labels": trained.head.labels,
        "dimension": trained.head.dimension,
        "held_out_accuracy": trained.held_out_accuracy,
        "held_out_rows": trained.held_out_rows,
        "ood": dict(trained.ood),
        "profile_rows": 0 if stored.profile is None else stored.profile.rows,
        "examples_to_share": 0 if stored.examples is None else len(stored.examples.texts),
        "synthetic": None if stored.synthetic is None else stored.synthetic.model_dump(),
    }
    typer.echo(json.dumps(facts, indent=2))


@tasks.command("remove")
def remove_task(directory: Directory, task: TaskName) -> None:
    """Remove a task; it stops being served at once."""
    from sealign_server.store import SiloStore

    SiloStore(directory).tasks.remove(task)
    typer.echo(f"removed task {task}")


@public.command("list")
def list_public(directory: Directory, as_json: AsJson = False) -> None:
    """List the public sets of all spaces."""
    print_rows([row for name, space in _spaces(directory).items() for row in public_rows(name, space)], as_json)


@public.command("show")
def show_public(directory: Directory, name: SetName, space: SpaceName = _EMBEDDINGS) -> None:
    """Show a public set as JSON, with the maps that were learned over it."""
    found = _space(directory, space)
    card = _chosen_set(found, name)
    learned = [record.card.id for record in found.map_records() if record.card.public_set == card.digest]
    typer.echo(json.dumps({**public_rows(space, found, card)[0], "maps": learned}, indent=2))


@public.command("remove")
def remove_public(directory: Directory, name: SetName, space: SpaceName = _EMBEDDINGS) -> None:
    """Remove a public set; clients can no longer align over it, nor use maps of their own that they learned over it."""
    found = _space(directory, space)
    card = _chosen_set(found, name)
    found.remove_public_set(card.digest)
    typer.echo(f"removed public set {card.name}")


@release.command("list")
def list_releases(directory: Directory, as_json: AsJson = False, ledger: LedgerUrl = None) -> None:
    """List releases that count, with their numbers."""
    from sealign_server.store import SiloStore

    print_rows(release_rows(opened_ledger(SiloStore(directory), ledger)), as_json)


@release.command("grant")
def grant(
    directory: Directory,
    number: Annotated[int, typer.Argument(help="Number of the release, from: release list.")],
    ledger: LedgerUrl = None,
) -> None:
    """Let a client have a release once more, if its cross-covariance was never delivered."""
    from sealign_server.ledger import Releases
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    releases = Releases(opened_ledger(store, ledger))
    granted = releases.counting(number)
    facts = {"space": granted.space, "public_set": granted.public_set, "encoder": granted.encoder}
    record(store, "grant", granted.identity, release=number, **facts)
    releases.grant(number)
    typer.echo(f"{granted.identity} may align encoder {granted.encoder} over {granted.public_set} once more")


def _spaces(directory: Path) -> dict[str, SpaceStore]:
    from sealign_server.serving.silo import spaces_of
    from sealign_server.store import SiloStore

    return spaces_of(SiloStore(directory))


def _space(directory: Path, name: str) -> SpaceStore:
    from sealign.errors import NotFoundError

    spaces = _spaces(directory)
    if name not in spaces:
        raise NotFoundError(f"there is no space {name[:64]!r} here; spaces are: {', '.join(spaces)}")
    return spaces[name]


def _chosen(space: SpaceStore, start: str) -> MapRecord:
    from sealign.errors import NoMapError

    found = [record for record in space.map_records() if record.card.id.startswith(start)]
    if len(found) != 1:
        raise NoMapError(f"{len(found)} maps begin with {start[:64]!r}; see: sealign-server map list")
    return found[0]


def _chosen_set(space: SpaceStore, name: str) -> PublicSetCard:
    from sealign.errors import NotFoundError

    cards = [card for card in space.public_sets() if card.name == name or card.digest.startswith(name)]
    if len(cards) != 1:
        raise NotFoundError(
            f"{len(cards)} public sets have the name {name[:64]!r} or a digest that begins so; see: sealign-server "
            "public list"
        )
    return cards[0]
