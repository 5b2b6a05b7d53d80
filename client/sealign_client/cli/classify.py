"""``sealign classify``."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealign.app.options import with_options
from sealign.app.terminal import visible
from sealign.errors import InvalidInputError
from sealign_client.cli.bulk import BulkOptions, classify_on_ray, deciding, say_faulty
from sealign_client.cli.common import AsJson, Config, iterate_file, settings_of, single_command
from sealign_client.cli.formats import Answer, ResultFormat, Writer
from sealign_client.cli.table import Table
from sealign_client.records import Columns, Format, Record, require_faultless
from sealign_client.results import Classification
from sealign_client.row_answers import OnError
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

if TYPE_CHECKING:
    from sealign_client.blocking import Client
    from sealign_client.daemon.running import RunningDaemon

app = single_command()

InputFile = Annotated[
    Path | None,
    typer.Option(
        help="File of texts: one per line, or .csv, .tsv, .jsonl with a column of texts; or of embeddings that the "
        "encoder made, .npy. Gzip is unpacked if the name ends in .gz; - for standard input."
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
Written = Annotated[
    ResultFormat | None,
    typer.Option(
        "--output-format",
        help="Format of results on standard output: by default a table on a terminal, else CSV for rows, and label and "
        "probability for texts.",
    ),
]
OnErrorChoice = Annotated[
    OnError | None,
    typer.Option(
        help="What becomes of a row that cannot be classified: fail (the default), skip it, or label it with the error."
    ),
]

OnRay = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="Classify on the Ray cluster that RAY_ADDRESS names, or on one that is started here. --file may be a "
        "directory of files of one format, and --output is a directory of Parquet files.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="With --ray: processes with one model each; by default one per CPU of the cluster."),
]
BlockRows = Annotated[
    int, typer.Option(min=1, max=1 << 16, help="With --ray: rows of one block, which is done whole or not at all.")
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
    output_format: Written = None,
    on_error: OnErrorChoice = None,
    task: Annotated[str | None, typer.Option(help="The silo's task; not needed if there is one.")] = None,
    as_json: AsJson = False,
    use_daemon: Annotated[
        bool, typer.Option("--daemon/--no-daemon", help="Use a daemon of yours that runs with the same settings.")
    ] = True,
    on_ray: OnRay = False,
    workers: Workers = None,
    block_rows: BlockRows = 1024,
    config: Config = None,
) -> None:
    """Classify texts, or embeddings, through ciphertexts: label, probability, and whether it is in distribution.

    Results appear as they are made. A probability is "-" if the silo could not calibrate it for your map. On a terminal
    they are a table. Elsewhere those of rows (CSV, TSV, JSON lines, .npy, --output, --on-error) are CSV, or JSON lines
    with --json, and name their row; those of texts are lines of label and probability.
    """
    if output_format is not None and (as_json or output is not None):
        raise InvalidInputError("--output-format is for standard output. Give it without --json and --output.")
    if texts and (file, output, on_error, name_column) != (None, None, None, None):
        raise InvalidInputError("Give texts as arguments or in --file, not both. Options of files need --file.")
    settings = settings_of(config, given)
    if on_ray:
        if file is None or output is None or output_format is not None or as_json or str(file) == "-":
            raise InvalidInputError("--ray reads --file and writes Parquet to the directory --output: give both alone.")
        bulk = BulkOptions(Columns(column, name_column), on_error or OnError.FAIL, task, block_rows, workers)
        classify_on_ray(file, file_format, output, bulk, settings)
        return
    kind = file_format or (Format.LINES if file is None else Format.of(file))
    seen = sys.stdout is not None and sys.stdout.isatty()
    written = ResultFormat.JSONL if as_json else output_format or (ResultFormat.TABLE if seen else None)
    if kind is not Format.LINES or output is not None or on_error is not None:
        columns = Columns(column, name_column)
        use_daemon = use_daemon and kind is not Format.NPY  # a daemon takes texts
        on_error, written = on_error or OnError.FAIL, written or ResultFormat.CSV
        _classify_table(Table(file or Path("-"), kind, columns, on_error, output, written), settings, task, use_daemon)
        return
    if file is not None:
        require_faultless(file, kind, Columns())
    wanted: Iterator[str] = iter(texts) if texts else iterate_file(file)
    _classify_texts(wanted, len(texts) if texts else None, _shown(written, as_json), settings, task, use_daemon)


def _classify_texts(
    texts: Iterator[str],
    count: int | None,
    shown: Callable[[Answer], str],
    settings: ClientSettings,
    task: str | None,
    use_daemon: bool,
) -> None:
    """Print a result for each text as it is made; one that comes late keeps no earlier result back."""
    from sealign.app.progress import progress

    drawn: deque[str] = deque()

    def drawing() -> Iterator[str]:
        for text in texts:
            drawn.append(text)
            yield text

    seen = sys.stdout is not None and sys.stdout.isatty()
    show = nullcontext(_ignore) if seen else progress("classifying", count)
    with _classifier(settings, use_daemon) as classifier, show as advance:
        for number, result in enumerate(classifier.classify_each(drawing(), task), 1):
            typer.echo(shown(Answer(Record(number, drawn.popleft(), str(number)), result)), nl=False)
            advance(1)


def _shown(written: ResultFormat | None, as_json: bool) -> Callable[[Answer], str]:
    """Return what writes a result of a text; a JSON object without number with ``as_json``, as it always was."""
    if as_json:
        return lambda answer: _json(answer.result) + "\n" if answer.result else ""
    if written is None:
        return lambda answer: _line(answer.result) + "\n" if answer.result else ""
    writer, first = Writer(written), True

    def shown(answer: Answer) -> str:
        nonlocal first
        head, first = writer.head() if first else "", False
        return head + writer.line(answer)

    return shown


def _classify_table(table: Table, settings: ClientSettings, task: str | None, use_daemon: bool) -> None:
    from sealign.app.progress import progress

    with _classifier(settings, use_daemon) as classifier, progress("classifying", None) as advance:
        faulty = table.classify(classifier, task, deciding(settings), advance)
    say_faulty(faulty, table.on_error)


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
