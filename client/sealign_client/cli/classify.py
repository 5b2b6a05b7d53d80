"""``sealign classify``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealign.app.options import with_options
from sealign.app.terminal import visible
from sealign.errors import InvalidInputError
from sealign_client.cli.common import AsJson, Config, iterate_file, settings_of, single_command
from sealign_client.cli.records import Columns, Format, require_faultless
from sealign_client.cli.table import OnError, Table
from sealign_client.results import Classification
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

if TYPE_CHECKING:
    from sealign_client.blocking import Client
    from sealign_client.daemon.running import RunningDaemon

app = single_command()

InputFile = Annotated[
    Path | None,
    typer.Option(
        help="File of texts: one per line, or .csv, .tsv, .jsonl with a column of texts; gzip is unpacked if the name "
        "ends in .gz; - for standard input."
    ),
]
InputFormat = Annotated[
    Format | None, typer.Option("--format", help="Format of the input, where its name does not say it.")
]
NameColumn = Annotated[
    str | None, typer.Option("--id", help="Column that names rows in the results; by default they are numbered.")
]
OutputFile = Annotated[
    Path | None,
    typer.Option(
        help="Write results to this file, .csv, .tsv or .jsonl. An interrupted run goes on when the command is given "
        "again."
    ),
]
OnErrorChoice = Annotated[
    OnError | None,
    typer.Option(
        help="What becomes of a row that cannot be classified: fail (the default), skip it, or label it with the error."
    ),
]


@app.command()
@with_options(ClientSettings, exclude=("model", *DAEMON_SETTINGS))
def classify(
    given: dict[str, Any],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, one per line from --file.")] = None,
    file: InputFile = None,
    file_format: InputFormat = None,
    column: Annotated[str, typer.Option(help="Column of texts in CSV and TSV, key in JSON lines.")] = "text",
    name_column: NameColumn = None,
    output: OutputFile = None,
    on_error: OnErrorChoice = None,
    task: Annotated[str | None, typer.Option(help="The silo's task; not needed if there is one.")] = None,
    as_json: AsJson = False,
    use_daemon: Annotated[
        bool, typer.Option("--daemon/--no-daemon", help="Use a daemon of yours that runs with the same settings.")
    ] = True,
    config: Config = None,
) -> None:
    """Classify texts through ciphertexts: label, probability, and whether the text is in distribution.

    Results appear as they are made. A probability is "-" if the silo could not calibrate it for your map. Results of
    rows (CSV, TSV, JSON lines, --output, --on-error) are CSV, or JSON lines with --json, and name their row.
    """
    from sealign.app.progress import progress

    if texts and (file, output, on_error, name_column) != (None, None, None, None):
        raise InvalidInputError("Give texts as arguments or in --file, not both. Options of files need --file.")
    settings = settings_of(config, given)
    kind = file_format or (Format.LINES if file is None else Format.of(file))
    if kind is not Format.LINES or output is not None or on_error is not None:
        written = Format.JSONL if as_json else Format.CSV
        columns = Columns(column, name_column)
        table = Table(file or Path("-"), kind, columns, on_error or OnError.FAIL, output, written)
        _classify_table(table, settings, task, use_daemon)
        return
    if file is not None:
        require_faultless(file, kind, Columns())
    wanted: Iterator[str] = iter(texts) if texts else iterate_file(file)
    seen = sys.stdout is not None and sys.stdout.isatty()
    show = nullcontext(_ignore) if seen else progress("classifying", len(texts) if texts else None)
    with _classifier(settings, use_daemon) as classifier, show as advance:
        for result in classifier.classify_each(wanted, task):
            typer.echo(_json(result) if as_json else _line(result))
            advance(1)


def _classify_table(table: Table, settings: ClientSettings, task: str | None, use_daemon: bool) -> None:
    from sealign.app.progress import progress

    decisive = {"silo": settings.silo, "encoder": settings.encoder, "recentring": str(settings.recentring)}
    with _classifier(settings, use_daemon) as classifier, progress("classifying", None) as advance:
        faulty = table.classify(classifier, task, decisive, advance)
    if faulty:
        done = "labelled" if table.on_error is OnError.LABEL else "skipped"
        typer.echo(f"{faulty} rows could not be classified and were {done}", err=True)


def _classifier(settings: ClientSettings, use_daemon: bool) -> RunningDaemon | Client:
    """Return a running daemon with these settings, which has a model loaded, or a client."""
    if use_daemon:
        from sealign_client.daemon.running import RunningDaemon

        if (daemon := RunningDaemon.find(settings)) is not None:
            return daemon
    from sealign_client.blocking import Client

    return Client(settings)


def _ignore(_: int) -> None:
    """Show no progress where the results themselves do."""


def _json(result: Classification) -> str:
    return json.dumps({name: value for name, value in vars(result).items() if name != "labels"})


def _line(result: Classification) -> str:
    probability = "-" if result.probability is None else f"{result.probability:.4f}"
    mark = "\tout of distribution" if result.in_distribution is False else ""
    return f"{visible(result.label)}\t{probability}{mark}"
