"""``sealign tasks``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from sealign.app.options import with_options
from sealign.app.terminal import print_table
from sealign_client.cli.common import AsJson, Config, settings_of, single_command
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

if TYPE_CHECKING:
    from sealign.protocol import TaskCard
    from sealign_client.results import Description, GenerationDescription

app = single_command()

_READY, _NOT_ALIGNED, _PREPARING = "ready", "not aligned", "being prepared"
_NOT_SERVED = "not served to your map"
_FAULTY = "cannot be served"


@app.command()
@with_options(ClientSettings, exclude=DAEMON_SETTINGS)
def tasks(given: dict[str, Any], as_json: AsJson = False, config: Config = None) -> None:
    """List the silo's tasks: labels, promised accuracy, and whether they can be used with your models."""
    from sealign_client.blocking import Client

    settings = settings_of(config, given)
    with Client(settings) as client:
        rows: list[dict[str, Any]] = []
        if settings.encoder is not None:
            offer = client.describe()
            rows += [
                {
                    "task": card.name,
                    "kind": "classification",
                    "labels": list(card.labels),
                    "accuracy": card.held_out_accuracy,
                    "promised": card.mapped_accuracy,
                    "margin": card.mapped_accuracy_margin,
                    "kept": card.kept,
                    "aligned": offer.map is not None,
                    "state": _state(offer, card),
                    "description": card.description,
                }
                for card in offer.tasks
            ]
            described = {card.name for card in offer.tasks}
            rows += [
                {"task": name, "kind": "classification", "state": _FAULTY, "description": ""}
                for name in offer.silo.faulty_tasks
                if name not in described
            ]
        if settings.model is not None:
            rows += [
                {
                    "task": found.card.name,
                    "kind": "generation",
                    "max_tokens": found.card.max_tokens,
                    "aligned": found.map is not None,
                    "state": _generation_state(found),
                    "description": found.card.description,
                }
                for found in client.describe_generation()
            ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    columns = ("task", "kind", "state", "promised accuracy", "silo's own", "texts kept", "labels", "description")
    print_table(columns, map(_cells, rows))


def _state(offer: Description, card: TaskCard) -> str:
    """Return whether a task can be used, and what hinders it."""
    if card.name in offer.silo.faulty_tasks:
        return _FAULTY
    if card.plans:
        return _READY
    if offer.map is None:
        return _NOT_ALIGNED
    return _PREPARING if card.preparing else _NOT_SERVED


def _generation_state(found: GenerationDescription) -> str:
    if found.card.plan is not None:
        return _READY
    return _NOT_ALIGNED if found.map is None else _NOT_SERVED


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    promised, own, kept = row.get("promised"), row.get("accuracy"), row.get("kept")
    return (
        row["task"],
        row["kind"],
        row["state"],
        "unknown" if promised is None else f"{promised:.3f}",
        "" if own is None else f"{own:.3f}",
        "" if kept is None else f"{kept[0]:.0%} to {kept[1]:.0%}",
        ", ".join(row.get("labels", ())),
        row["description"],
    )
