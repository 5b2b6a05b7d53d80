"""Files classified block by block into a directory of Parquet files, in any order and by any number of processes.

A block is so many rows of a file, and has one Parquet file of its own, which is there whole or not at all. What is
there is done: a run that was killed reads on, and classifies what is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from sealign.errors import InvalidInputError, StorageError
from sealign.files import write_atomically
from sealign.files.atomic import PRIVATE, replacing
from sealign_client.frames import client_of
from sealign_client.records import Columns, Format, Record, iterate_records, opened, require_faultless
from sealign_client.results import Classification
from sealign_client.row_answers import OnError, RowAnswer, answers
from sealign_client.settings import ClientSettings

ABOUT = "_about.json"
"""File in the output that says what the results are of; readers of Parquet pass over names that begin so."""

SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("in_distribution", pa.bool_()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Job:
    """Files to classify into a directory.

    Attributes:
        files: input, of one format.
        kind: format of the files.
        columns: where text and name of a row are.
        output: directory of results.
        task: name of the silo's task; None if there is one.
        on_error: what becomes of a row that cannot be classified.
        block_rows: rows of one block.
    """

    files: tuple[Path, ...]
    kind: Format
    columns: Columns
    output: Path
    task: str | None = None
    on_error: OnError = OnError.FAIL
    block_rows: int = 1024

    def begin(self, decisive: dict[str, Any]) -> None:
        """Make the output, or find that of an interrupted run.

        Args:
            decisive: settings that decide the results.

        Raises:
            InvalidInputError: the output is complete, of something else, or no output; or input rows are faulty, the
                first by their numbers, unless they are skipped or labelled.
            StorageError: a file cannot be read or written.
        """
        about, file = {**decisive, **self._facts()}, self.output / ABOUT
        if file.exists():
            _require_resumable(file, about)
        elif self.output.exists() and any(self.output.iterdir()):
            raise InvalidInputError(f"{self.output} holds something else. Choose another output.")
        if self.on_error is OnError.FAIL:
            for path in self.files:
                require_faultless(path, self.kind, self.columns)
        write_atomically(file, json.dumps({"about": about, "complete": False}).encode())

    def _facts(self) -> dict[str, Any]:
        try:
            facts = [(path.absolute(), path.stat()) for path in self.files]
        except OSError as error:
            raise StorageError(f"could not read {error.filename}: {error.strerror}") from error
        return {
            "files": [[str(path), found.st_size, found.st_mtime_ns] for path, found in facts],
            "format": self.kind.value,
            "column": self.columns.text,
            "id": self.columns.name,
            "task": self.task,
            "on_error": self.on_error.value,
            "block_rows": self.block_rows,
        }

    def finish(self, blocks: int) -> None:
        """Note that the output is complete, if it has so many blocks.

        Raises:
            StorageError: it has fewer, or more.
        """
        there = len(list(self.output.glob("part-*.parquet")))
        if there != blocks:
            raise StorageError(f"{self.output} has {there} of {blocks} parts. Give the command again.")
        for leftover in self.output.glob(".part-*.tmp"):  # of workers that were killed
            leftover.unlink(missing_ok=True)
        about = json.loads((self.output / ABOUT).read_bytes())
        write_atomically(self.output / ABOUT, json.dumps({**about, "complete": True, "parts": blocks}).encode())


@dataclass(frozen=True)
class Block:
    """Rows of a file that are classified together. The last one of a file is empty and says how many came before.

    Attributes:
        file: index of the file.
        number: of the block in its file, from 0.
        records: rows.
    """

    file: int
    number: int
    records: tuple[Record, ...] = ()

    @property
    def part(self) -> str:
        """Name of the file of its results."""
        return f"part-{self.file:05d}-{self.number:07d}.parquet"


def iterate_blocks(job: Job, file: int) -> Iterator[Block]:
    """Yield the blocks of a file that are not done, in constant memory, then the last, which is empty.

    Raises:
        InvalidInputError, StorageError: as `iterate_records`.
    """
    with opened(job.files[file]) as stream:
        records = iterate_records(stream, job.kind, job.columns, str(job.files[file]))
        for number in count():
            block = Block(file, number, tuple(islice(records, job.block_rows)))
            if not block.records or not (job.output / block.part).exists():
                yield block
            if not block.records:
                return


@dataclass(frozen=True)
class Done:
    """What was made of a block.

    Attributes:
        blocks: of the file, if it was the last, else 0.
        rows: that were read.
        faulty: of them, those that could not be classified.
    """

    blocks: int = 0
    rows: int = 0
    faulty: int = 0


class BlockClassifier:
    """Classifies blocks and writes their results. A block that is done twice is there once.

    Args:
        job: what to classify.
        settings: of the client; one is made per process, with one model.
    """

    def __init__(self, job: Job, settings: ClientSettings) -> None:
        self._job, self._settings = job, settings

    def done(self, block: Block) -> Done:
        """Classify a block; returns when its file is on the disk.

        Raises:
            InvalidInputError: a row that cannot be classified, by its number, unless they are skipped or labelled.
            StorageError: the results could not be written.
            SealignError: as `Client.classify`.
        """
        if not block.records:
            return Done(blocks=block.number)
        job, path = self._job, self._job.files[block.file]
        found = answers(client_of(self._settings), job.task, block.records)
        faulty = [(record, answer) for record, answer in zip(block.records, found, strict=True) if _is_fault(answer)]
        if faulty and job.on_error is OnError.FAIL:
            raise InvalidInputError(f"{path}: row {faulty[0][0].number}: {faulty[0][1]}")
        table = _table(path.name, block.records, found, skip=job.on_error is OnError.SKIP)
        with replacing(job.output / block.part, PRIVATE) as stream:
            parquet.write_table(table, stream)
        return Done(rows=len(block.records), faulty=len(faulty))


def _is_fault(answer: RowAnswer) -> bool:
    return isinstance(answer, InvalidInputError)


def _table(file: str, records: Sequence[Record], found: Sequence[RowAnswer], *, skip: bool) -> pa.Table:
    rows = []
    for record, answer in zip(records, found, strict=True):
        row: dict[str, Any] = {"file": file, "row": record.name}
        if isinstance(answer, Classification):
            row |= {name: getattr(answer, name) for name in ("label", "probability", "in_distribution")}
        elif skip:
            continue
        else:
            row["error"] = str(answer)
        rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)


def _require_resumable(file: Path, about: dict[str, Any]) -> None:
    try:
        content = json.loads(file.read_bytes())
        earlier, complete = content["about"], content["complete"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{file} is damaged. Delete {file.parent} to begin anew.") from error
    if complete:
        raise InvalidInputError(f"{file.parent} is complete. Delete it, or choose another output.")
    changed = ", ".join(name for name in about if earlier.get(name) != about[name])
    if changed:
        raise InvalidInputError(
            f"{file.parent} is of an interrupted run with other settings or another input ({changed}). Delete it to "
            "begin anew."
        )
