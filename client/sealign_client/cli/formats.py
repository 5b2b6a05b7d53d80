"""Results as text: CSV, TSV, JSON lines, or a table for people."""

from __future__ import annotations

import csv
import enum
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealign.app.terminal import visible
from sealign.errors import InvalidInputError
from sealign_client.records import Record
from sealign_client.results import Classification

COLUMNS = ("row", "label", "probability", "in_distribution", "error")

_LONGEST_LABEL = 40
_SHORTEST_TEXT = 20


class ResultFormat(str, enum.Enum):
    """How results are written."""

    TABLE = "table"
    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"

    @classmethod
    def of(cls, file: Path) -> ResultFormat:
        """Return the format that a file's name says.

        Raises:
            InvalidInputError: it says none.
        """
        endings = {".csv": cls.CSV, ".tsv": cls.TSV, ".jsonl": cls.JSONL, ".ndjson": cls.JSONL}
        if file.suffix.lower() not in endings:
            raise InvalidInputError(f"The name of the output {file} must end in .csv, .tsv or .jsonl.")
        return endings[file.suffix.lower()]


@dataclass(frozen=True)
class Answer:
    """What is written about a row: a result, or why there is none."""

    record: Record
    result: Classification | None
    fault: str = ""


class Writer:
    """Lines of results, with their line endings. A table's columns are as wide as its first result asks for.

    Args:
        kind: of the lines.
    """

    def __init__(self, kind: ResultFormat) -> None:
        self._kind = kind
        self._label_width: int | None = None

    def head(self) -> str:
        """Return what comes before the first result."""
        return _row(list(COLUMNS), self._kind) if self._kind in (ResultFormat.CSV, ResultFormat.TSV) else ""

    def line(self, answer: Answer) -> str:
        """Return an answer as text."""
        if self._kind is ResultFormat.TABLE:
            return self._table_lines(answer)
        result = answer.result
        facts: dict[str, Any] = {"row": answer.record.name}
        if result is not None:
            facts |= {name: value for name, value in vars(result).items() if name != "labels"}
        if answer.fault:
            facts["error"] = answer.fault
        if self._kind is ResultFormat.JSONL:
            return json.dumps(facts, ensure_ascii=False) + "\n"
        return _row([facts.get(column) for column in COLUMNS], self._kind)

    def _table_lines(self, answer: Answer) -> str:
        result, head = answer.result, ""
        if self._label_width is None:
            labels = () if result is None else result.labels
            self._label_width = min(max([len("label"), *(len(visible(label)) for label in labels)]), _LONGEST_LABEL)
            head = self._aligned("row", "label", "probability", "in distr.", "text")
        if result is None:
            return head + self._aligned(answer.record.name, "-", "-", "-", f"error: {answer.fault}")
        probability = "-" if result.probability is None else f"{result.probability:.4f}"
        within = {None: "-", True: "yes", False: "no"}[result.in_distribution]
        return head + self._aligned(answer.record.name, result.label, probability, within, answer.record.text)

    def _aligned(self, row: str, label: str, probability: str, within: str, text: str) -> str:
        width = self._label_width or 0
        row, label = _cut(visible(row), 8), _cut(visible(label), width)
        start = f"{row:>8}  {label:<{width}}  {probability:>11}  {within:<9}  "
        room = max(shutil.get_terminal_size().columns - len(start), _SHORTEST_TEXT)
        return (start + _cut(visible(text[: 4 * room]), room)).rstrip() + "\n"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _row(cells: list[Any], kind: ResultFormat) -> str:
    written = io.StringIO()
    writer = csv.writer(written, delimiter="\t" if kind is ResultFormat.TSV else ",", lineterminator="\n")
    writer.writerow(["" if cell is None else cell for cell in cells])
    return written.getvalue()
