"""Formats of a silo's directory, and the steps from one to the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.files import write_atomically
from sealign_server.store.files import read_json
from sealign_server.store.silo import FORMAT

STEPS: Mapping[int, Callable[[Path], None]] = MappingProxyType({})
"""Function that takes a directory of a format to the next one, by that format. It can be run again after a crash."""


def upgrade(directory: Path) -> tuple[int, int]:
    """Bring a silo's directory to the format of this version of Sealign. Return the format before, and now.

    Raises:
        NotFoundError: the directory is not a silo.
        InvalidInputError: it is of a later version of Sealign, or of one from which no step leads here.
        StorageError: a file is damaged or could not be written.
    """
    path = directory / "silo.json"
    if not path.exists():
        raise NotFoundError(f"{directory} is not a silo (no silo.json)")
    before = found = _format(path)
    while found != FORMAT:
        if found > FORMAT or found not in STEPS:
            raise InvalidInputError(
                f"{directory} has format {found}, and this version of Sealign reads format {FORMAT}; "
                + ("install a later version" if found > FORMAT else "upgrade with an earlier version first")
            )
        STEPS[found](directory)
        found += 1
        content = {**_document(path), "format_version": found}
        write_atomically(path, json.dumps(content, indent=1).encode("utf-8", "surrogatepass"))
    return before, found


def _document(path: Path) -> dict[str, object]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise StorageError(f"{path} is damaged; restore a copy")
    return content


def _format(path: Path) -> int:
    version = _document(path).get("format_version", 1)
    if not isinstance(version, int) or isinstance(version, bool):
        raise StorageError(f"{path} is damaged: its format_version is no number; restore a copy")
    return version
