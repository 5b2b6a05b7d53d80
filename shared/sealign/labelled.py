"""Labelled texts as files: UTF-8 TSV with the header ``label<TAB>text``."""

from __future__ import annotations

from pathlib import Path

from sealign.errors import InvalidInputError, NotFoundError, StorageError


def read_labelled(path: Path) -> tuple[list[str], list[str]]:
    """Labels and texts of a file, in its order.

    Raises:
        NotFoundError, StorageError: the file is missing or cannot be read.
        InvalidInputError: a line without two columns, named by its number.
    """
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8; convert it") from error
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    if rows[0] != ["label", "text"]:
        raise InvalidInputError(f"{path}: line 1 must be the header label<TAB>text")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not all(cell.strip() for cell in row):
            raise InvalidInputError(f"{path}: line {number} must be a label, a tab and a text")
    return [label for label, _ in rows[1:]], [text for _, text in rows[1:]]
