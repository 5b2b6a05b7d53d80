"""Labelled texts as files: UTF-8 TSV with the header ``label<TAB>text``, or ``text<TAB>label``."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from sealign.errors import InvalidInputError
from sealign.lines import read_lines

_QUOTES = "\"'`“”„«»‘’"


def read_labelled(path: Path) -> tuple[list[str], list[str]]:
    """Return the labels and texts of a file, in its order and as they stand in it.

    The header says which column holds the labels. Nothing is unquoted or trimmed: a label with spaces or quotes comes
    back with them.

    Raises:
        NotFoundError, StorageError: the file is missing or cannot be read.
        InvalidInputError: a bad header; a line without two columns; or two labels that differ only in surrounding
            spaces, quotes or Unicode normalisation, which would count as two classes. Lines are named by their numbers.
    """
    header, *lines = read_lines(path) or [""]
    columns = header.split("\t")
    if sorted(columns) != ["label", "text"]:
        raise InvalidInputError(f"{path}: line 1 must be the header label<TAB>text, or text<TAB>label")
    label, text = columns.index("label"), columns.index("text")
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, 2):
        if len(row) != 2 or not all(cell.strip() for cell in row):
            raise InvalidInputError(
                f"{path}: line {number} must be a {columns[0]}, a tab and a {columns[1]}; "
                "replace tabs inside a text by spaces"
            )
    labels = [row[label] for row in rows]
    _require_distinct(labels, path)
    return labels, [row[text] for row in rows]


def _require_distinct(labels: Sequence[str], path: Path) -> None:
    """Refuse labels that people would read as the same one."""
    first: dict[str, tuple[str, int]] = {}
    for number, label in enumerate(labels, 2):
        spelling, line = first.setdefault(_plain(label), (label, number))
        if spelling != label:
            raise InvalidInputError(
                f"{path}: the label of line {number} differs from that of line {line} only in surrounding spaces, "
                "quotes or Unicode normalisation; write both the same way"
            )


def _plain(label: str) -> str:
    normal = unicodedata.normalize("NFC", label)
    return " ".join(normal.strip().strip(_QUOTES).split()) or normal
