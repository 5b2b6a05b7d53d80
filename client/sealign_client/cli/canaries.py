"""``sealign canaries``: how a silo has answered rows whose answers this client knows."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from sealign.app.terminal import print_table
from sealign_client.cli.common import AsJson, MapDirectory
from sealign_client.local.canaries import CanaryStore
from sealign_client.local.directory import maps_directory

app = typer.Typer(
    help="List how silos have answered canaries, and forget it.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_reports(map_directory: MapDirectory = None, as_json: AsJson = False) -> None:
    """List what was compared, what was wrong, and with which confidence, for each version of a task."""
    found = _store(map_directory).reports()
    if as_json:
        typer.echo(json.dumps([asdict(report) for report in found], indent=2))
        return
    print_table(
        ("task", "compared", "wrong", "alarm", "confidence", "may be missed"),
        (
            (
                report.task,
                str(report.compared),
                str(report.wrong),
                "yes" if report.is_alarm else "no",
                f"{report.confidence:.6f}",
                f"under {report.undetected_share:.1%}",
            )
            for report in found
        ),
    )


@app.command()
def forget(map_directory: MapDirectory = None, as_json: AsJson = False) -> None:
    """Forget all answers, and with them every alarm: the next answers are taken for right. Ask the operator before."""
    count = _store(map_directory).forget()
    typer.echo(json.dumps({"forgotten": count}) if as_json else f"forgot the answers of {count} versions of tasks")


def _store(directory: Path | None) -> CanaryStore:
    return CanaryStore(maps_directory(directory))
