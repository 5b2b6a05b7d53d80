"""Command that shows a silo: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import typer

from sealign_server.cli.arguments import AsJson, Directory
from sealign_server.cli.ledgers import LedgerUrl, opened_ledger

if TYPE_CHECKING:
    from sealign.protocol import PublicSetCard
    from sealign_server.ledger import Ledger
    from sealign_server.serving.silo import TaskStates
    from sealign_server.store import SiloStore, SpaceStore


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(info)


def info(directory: Directory, as_json: AsJson = False, ledger: LedgerUrl = None) -> None:
    """Show a silo's encoder, tasks, public sets, maps, releases and use."""
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    facts = _facts(store, opened_ledger(store, ledger))
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from sealign.app.terminal import print_table, visible

    encoder = facts["encoder"]
    typer.echo(
        f"silo {visible(facts['name'])}: encoder {visible(encoder['name'])}, {encoder['dimension']} dimensions, "
        f"{encoder['fingerprint']}"
    )
    typer.echo(f"signing key {facts['signing_key']}")
    for title in ("tasks", "generation_tasks", "public_sets", "maps", "releases", "rows"):
        rows: Sequence[dict[str, Any]] = facts[title]
        if rows:
            columns = list(rows[0])
            print_table(
                [column.replace("_", " ") for column in columns],
                [[shown(row[column]) for column in columns] for row in rows],
                title.replace("_", " ").capitalize(),
            )
        else:
            typer.echo(f"{title.replace('_', ' ')}: none")


def _facts(store: SiloStore, ledger: Ledger) -> dict[str, Any]:
    from sealign_server.ledger import Usage
    from sealign_server.serving.silo import spaces_of

    spaces, states = spaces_of(store), _states(store, ledger)
    usage = [
        {"identity": identity, "task": task, "encoder": encoder, "rows": rows}
        for identity, task, encoder, rows in Usage(ledger).totals()
    ]
    return {
        "name": store.document.name,
        "signing_key": store.signing.public.hex(),
        "encoder": store.document.encoder_card.model_dump(),
        "tasks": [_task(store, name, reason) for name, reason in states.tasks.items()],
        "generation_tasks": [_generation(store, name, reason) for name, reason in states.generation_tasks.items()],
        "public_sets": [row for name, space in spaces.items() for row in public_rows(name, space)],
        "maps": [row for name, space in spaces.items() for row in map_rows(name, space)],
        "releases": release_rows(ledger),
        "rows": usage,
    }


def _states(store: SiloStore, ledger: Ledger) -> TaskStates:
    """Return which tasks can be served, with the settings of the silo's silo.toml."""
    from sealign_server.serving import Silo
    from sealign_server.settings import serve_settings

    # Certificates, which are not read here, have nothing to do with tasks; serve is given them by variables, maybe.
    unread = {"tls_cert": store.directory, "tls_key": store.directory}
    with closing(Silo(store, ledger, serve_settings(store.directory, unread).serving())) as silo:
        silo.look_at_tasks()
        return silo.look_at_generation()


def _task(store: SiloStore, name: str, reason: str | None) -> dict[str, Any]:
    from sealign.errors import StorageError

    row: dict[str, Any] = {"name": name, "state": _state(reason)}
    try:
        task = store.tasks.load(name)
    except StorageError:
        return row | dict.fromkeys(("labels", "held_out_accuracy", "examples_to_share", "epsilon", "description"))
    return row | {
        "labels": len(task.trained.head.labels),
        "held_out_accuracy": task.trained.held_out_accuracy,
        "examples_to_share": 0 if task.examples is None else len(task.examples.texts),
        "epsilon": None
        if task.examples is None or task.examples.synthetic is None
        else task.examples.synthetic.epsilon,
        "description": task.description or "",
    }


def _generation(store: SiloStore, name: str, reason: str | None) -> dict[str, Any]:
    from sealign.errors import StorageError

    row: dict[str, Any] = {"name": name, "state": _state(reason)}
    try:
        document = store.generation.document(name)
    except StorageError:
        return row | dict.fromkeys(("model", "vocabulary", "description"))
    return row | {
        "model": document.encoder_card.name,
        "vocabulary": document.vocabulary,
        "description": document.description,
    }


def _state(reason: str | None) -> str:
    return "can be served" if reason is None else f"cannot be served: {reason}"


def release_rows(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the releases that count as rows of a table."""
    from sealign_server.ledger import Releases

    return [
        {
            "number": release.number,
            "space": release.space,
            "public_set": release.public_set,
            "identity": release.identity,
            "encoder": release.encoder,
            "dimension": release.dimension,
            "texts": release.rows,
            "created": release.created,
        }
        for release in Releases(ledger).all()
    ]


def public_rows(name: str, space: SpaceStore, *only: PublicSetCard) -> list[dict[str, Any]]:
    """Return the public sets of a space, or only some, as rows of a table."""
    return [
        {"space": name, "name": card.name, "rows": card.rows, "digest": card.digest, "base": card.base}
        for card in only or space.public_sets()
    ]


def map_rows(name: str, space: SpaceStore) -> list[dict[str, Any]]:
    """Return the maps of a space as rows of a table."""
    return [
        {
            "space": name,
            "id": record.card.id,
            "identity": record.identity,
            "encoder": record.card.encoder,
            "public_set": record.card.public_set,
            "rows": record.card.rows,
            "explained_variance": record.card.explained_variance,
            "mean_cosine": record.card.mean_cosine,
            "linear_cka": record.card.linear_cka,
            "divergence": record.card.divergence,
            "created": record.card.created,
        }
        for record in space.map_records()
    ]


def shown(value: object) -> str:
    """Return a cell of a table."""
    if value is None:
        return "unknown"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as JSON."""
    from sealign.app.terminal import print_table

    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        print_table([name.replace("_", " ") for name in rows[0]], [[shown(v) for v in row.values()] for row in rows])
    else:
        typer.echo("none")
