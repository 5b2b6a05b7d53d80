"""Rows of files, in constant memory.

They are texts in lines, CSV, TSV or JSON lines, also packed with gzip, or in Parquet; or embeddings in .npy.
"""

from __future__ import annotations

import csv
import enum
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from sealign.app.terminal import standard_input
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.lines import LONGEST_LINE, iterate_lines

if TYPE_CHECKING:
    from sealign_client.npy import Row

_ESCAPED = re.compile("[\udc80-\udcff]")
_DELIMITERS = ",;\t|"
_NAMED = 3
"""Faulty rows that an error names."""
_PARQUET_ROWS = 1024
_NO_TEXT = "has an empty text, or one with a NUL character; remove the row"


class Format(str, enum.Enum):
    """What rows a file has."""

    LINES = "lines"
    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    NPY = "npy"
    PARQUET = "parquet"

    @classmethod
    def of(cls, file: Path) -> Format:
        """Return the format that a file's name says: by default, lines."""
        name = file.name.removesuffix(".gz").lower()
        tables = {".csv": cls.CSV, ".tsv": cls.TSV, ".jsonl": cls.JSONL, ".ndjson": cls.JSONL}
        endings = {**tables, ".parquet": cls.PARQUET, ".npy": cls.NPY}
        return next((found for ending, found in endings.items() if name.endswith(ending)), cls.LINES)


@dataclass(frozen=True)
class Record:
    """One row of a file.

    Attributes:
        number: from 1, the header aside.
        text: to classify; empty if the row is faulty or an embedding.
        name: what the results call the row: its number, or the cell of the column that names rows.
        fault: why the row cannot be used; None if it can.
        embedding: to classify in place of a text, (d,).
    """

    number: int
    text: str
    name: str
    fault: str | None = None
    embedding: Row | None = None


@dataclass(frozen=True)
class Columns:
    """Where text and name of a row are, by the header of CSV, TSV and Parquet, or by key of JSON lines."""

    text: str = "text"
    name: str | None = None


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if it is gzip; "-" is standard input.

    Raises:
        NotFoundError, StorageError: it is missing, or cannot be opened.
    """
    try:
        raw = standard_input() if str(file) == "-" else file.open("rb")
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {file}. Check the path.") from error
    except OSError as error:
        raise StorageError(f"could not read {file}: {error.strerror or error}") from error
    with raw:
        yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if file.suffix == ".gz" else raw


def iterate_records(stream: BinaryIO, kind: Format, columns: Columns, name: str) -> Iterator[Record]:
    """Yield the rows of a file, faulty ones included.

    Args:
        name: of the file, for errors.

    Raises:
        InvalidInputError: there is no such column, or the file cannot be read as what it should be.
        StorageError: it cannot be read.
    """
    try:
        if kind is Format.LINES:
            for line in iterate_lines(stream):
                yield Record(line.number, line.text, str(line.number), line.fault)
        elif kind is Format.JSONL:
            for line in iterate_lines(stream):
                yield _of_object(line.number, line.text, columns, line.fault)
        elif kind is Format.NPY:
            from sealign_client.npy import iterate_rows

            for number, row in enumerate(iterate_rows(stream, name), 1):
                yield Record(number, "", str(number), embedding=row)
        elif kind is Format.PARQUET:
            yield from _of_parquet(stream, columns, name)
        else:
            yield from _of_table(stream, kind, columns, name)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"{name} is no gzip file, or damaged: {error}. Take another copy.") from None
    except OSError as error:
        raise StorageError(f"could not read {name}: {error.strerror or error}") from error


def require_faultless(file: Path, kind: Format, columns: Columns) -> None:
    """Refuse a file with faulty rows before any work; what can be read only once passes.

    Raises:
        InvalidInputError: rows are faulty, the first of them by their numbers.
        SealignError: as `opened` and `iterate_records`.
    """
    if not file.is_file():
        return
    with opened(file) as stream:
        faulty = (record for record in iterate_records(stream, kind, columns, str(file)) if record.fault is not None)
        found = list(islice(faulty, _NAMED + 1))
    if found:
        word = "line" if kind is Format.LINES else "row"
        named = [f"{word} {record.number}: {record.fault}" for record in found[:_NAMED]]
        more = "; and more" if len(found) > _NAMED else ""
        raise InvalidInputError(f"{file}: {'; '.join(named)}{more}")


def _of_object(number: int, text: str, columns: Columns, fault: str | None) -> Record:
    named = str(number)
    if fault is None:
        try:
            content = json.loads(text)
        except ValueError:
            return Record(number, "", named, "is not JSON; write one object per line")
        if not isinstance(content, dict):
            return Record(number, "", named, "is not a JSON object; write one object per line")
        if columns.name is not None:
            named = str(content.get(columns.name, number))
        if isinstance(found := content.get(columns.text), str) and found.strip():
            return Record(number, found, named)
        fault = f"has no text under {columns.text!r}; choose another key with --column"
    return Record(number, "", named, fault)


def _of_parquet(stream: BinaryIO, columns: Columns, name: str) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise InvalidInputError(f"{name} is Parquet, which needs pyarrow: pip install 'sealign[ray]'.") from None
    try:
        file = parquet.ParquetFile(stream)
        header = file.schema_arrow.names
        for column in (columns.text, columns.name):
            _position(header, column, name)
        wanted = [columns.text, *([] if columns.name is None else [columns.name])]
        number = 0
        for batch in file.iter_batches(_PARQUET_ROWS, columns=wanted):
            cells = batch.to_pydict()
            for text, label in zip(cells[columns.text], cells[wanted[-1]], strict=True):
                number += 1
                named = str(number) if columns.name is None or label is None else str(label)
                good = isinstance(text, str) and text.strip() and "\0" not in text
                yield Record(number, text, named) if good else Record(number, "", named, _NO_TEXT)
    except ArrowException as error:
        raise InvalidInputError(f"{name} is no Parquet file, or damaged: {error}. Take another copy.") from None


def _of_table(stream: BinaryIO, kind: Format, columns: Columns, name: str) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_LINE)
    lines = _table_lines(stream, name)
    number = 0
    try:
        first = next(iter(lines), "")
        delimiter = "\t" if kind is Format.TSV else _delimiter(first, columns.text)
        rows = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        header = next(rows, [])
        text, label = (_position(header, column, name) for column in (columns.text, columns.name))
        for number, row in enumerate((row for row in rows if row), 1):
            yield _of_row(number, row, len(header), text, label)
    except csv.Error as error:
        raise InvalidInputError(f"{name}: row {number + 1} is not {kind.value.upper()}: {error}. Mend it.") from None


def _table_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Yield the lines of a table with their endings, in constant memory.

    Raises:
        InvalidInputError: a line so long that this is no table.
    """
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    number = 0
    while line := text.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InvalidInputError(f"{name}: line {number} is longer than {LONGEST_LINE:,} characters. Shorten it.")
        yield line


def _delimiter(header: str, column: str) -> str:
    """Return what separates the cells of a table whose header has a column; spreadsheets of many countries write ;."""
    found = (mark for mark in _DELIMITERS if column in next(csv.reader([header], delimiter=mark), []))
    return next(found, _DELIMITERS[0])


def _position(header: list[str], column: str | None, name: str) -> int | None:
    if column is None:
        return None
    if header.count(column) != 1:
        known = ", ".join(header)[:300] or "none"
        raise InvalidInputError(
            f"{name} has {header.count(column)} columns {column!r}; its columns are: {known}. Choose one with --column "
            "or --id."
        )
    return header.index(column)


def _of_row(number: int, row: list[str], width: int, text: int | None, label: int | None) -> Record:
    named = str(number) if label is None or label >= len(row) else row[label]
    if len(row) != width:
        return Record(number, "", named, f"has {len(row)} columns, and the header {width}; quote commas and tabs")
    found = row[text or 0]
    if _ESCAPED.search(found):
        return Record(number, "", named, "is not UTF-8; convert the file to UTF-8")
    if "\0" in found or not found.strip():
        return Record(number, "", named, _NO_TEXT)
    return Record(number, found, named)
