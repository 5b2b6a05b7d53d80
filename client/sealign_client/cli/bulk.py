"""``sealign classify --ray``, and what it has in common with files without Ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from sealign.errors import InvalidInputError, NotFoundError
from sealign_client.records import Columns, Format
from sealign_client.row_answers import OnError
from sealign_client.settings import ClientSettings


@dataclass(frozen=True)
class BulkOptions:
    """How rows are classified in bulk.

    Attributes:
        columns: where text and name of a row are.
        on_error: what becomes of a row that cannot be classified.
        task: name of the silo's task; None if there is one.
        block_rows: rows of one block.
        workers: processes; None for one per CPU of the cluster.
    """

    columns: Columns
    on_error: OnError
    task: str | None
    block_rows: int
    workers: int | None


def classify_on_ray(
    source: Path, kind: Format | None, output: Path, options: BulkOptions, settings: ClientSettings
) -> None:
    """Classify a file, or all files of a directory, into a directory of Parquet files.

    Raises:
        InvalidInputError: Ray is not installed; there is no input; or as `sealign_client.ray.classify_files`.
        SealignError: likewise.
    """
    try:
        from sealign_client import ray
        from sealign_client.blocks import Job
    except ModuleNotFoundError as error:
        raise InvalidInputError(f"--ray needs {error.name}: pip install 'sealign[ray]'.") from None
    from sealign.app.progress import progress

    files, found = _input(source, kind)
    job = Job(files, found, options.columns, output, options.task, options.on_error, options.block_rows)
    job.begin(deciding(settings))
    with ray.connected(options.workers), progress("classifying", None) as advance:
        faulty = ray.classify_files(job, settings, workers=options.workers, advance=advance)
    say_faulty(faulty, options.on_error)


def deciding(settings: ClientSettings) -> dict[str, Any]:
    """Return the settings that decide results; an interrupted output of others is not gone on with."""
    return {"silo": settings.silo, "encoder": settings.encoder, "recentring": str(settings.recentring)}


def say_faulty(count: int, on_error: OnError) -> None:
    """Say how many rows could not be classified, if there are any."""
    if count:
        done = "labelled" if on_error is OnError.LABEL else "skipped"
        typer.echo(f"{count} rows could not be classified and were {done}", err=True)


def _input(source: Path, kind: Format | None) -> tuple[tuple[Path, ...], Format]:
    """Return the files to read, in the order of their names, and their format."""
    if not source.exists():
        raise NotFoundError(f"There is no file {source}. Check the path.")
    paths = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.name[0] not in "._")
    kinds = {kind or Format.of(path) for path in paths}
    if len(kinds) != 1 or not all(path.is_file() for path in paths):
        raise InvalidInputError(f"{source} must hold files of one format and nothing else.")
    return tuple(paths), kinds.pop()
