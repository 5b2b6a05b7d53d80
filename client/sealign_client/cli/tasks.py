"""``sealign tasks``."""

from __future__ import annotations

import json
from typing import Any

import typer

from sealign.app.options import with_options
from sealign.app.terminal import print_table
from sealign_client.cli.common import AsJson, Config, settings_of, single_command
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

app = single_command()


@app.command()
@with_options(ClientSettings, exclude=DAEMON_SETTINGS)
def tasks(given: dict[str, Any], as_json: AsJson = False, config: Config = None) -> None:
    """List the silo's tasks: labels, promised accuracy, and whether your models are aligned with them."""
    from sealign_client.blocking import Client

    settings = settings_of(config, given)
    with Client(settings) as client:
        rows = []
        if settings.encoder is not None:
            rows += [
                {
                    "task": card.name,
                    "kind": "classification",
                    "labels": list(card.labels),
                    "accuracy": card.held_out_accuracy,
                    "promised": card.mapped_accuracy,
                    "aligned": bool(card.plans),
                    "description": card.description,
                }
                for card in client.describe().tasks
            ]
        if settings.model is not None:
            rows += [
                {
                    "task": found.card.name,
                    "kind": "generation",
                    "max_tokens": found.card.max_tokens,
                    "aligned": found.card.plan is not None,
                    "description": found.card.description,
                }
                for found in client.describe_generation()
            ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    columns = ("task", "kind", "aligned", "promised accuracy", "silo's own", "labels", "description")
    print_table(columns, map(_cells, rows))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    promised, own = row.get("promised"), row.get("accuracy")
    return (
        row["task"],
        row["kind"],
        "yes" if row["aligned"] else "no",
        "unknown" if promised is None else f"{promised:.3f}",
        "" if own is None else f"{own:.3f}",
        ", ".join(row.get("labels", ())),
        row["description"],
    )
