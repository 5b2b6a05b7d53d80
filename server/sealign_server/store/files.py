"""What the stores have in common: private directories, documents, names, leftovers."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from sealign.errors import InvalidInputError, StorageError
from sealign.files import write_atomically

_log = structlog.get_logger()

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_LEFTOVER_SECONDS = 3600.0

_Document = TypeVar("_Document", bound="Document")


class Document(BaseModel):
    """A JSON file with fixed keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls: type[_Document], path: Path) -> _Document:
        """Return the document at a path.

        Raises:
            StorageError: it is missing or damaged.
        """
        try:
            return cls.model_validate_json(read_content(path))
        except ValidationError as error:
            raise StorageError(f"{path} is damaged ({error.error_count()} faults); restore a copy") from error

    def write(self, path: Path) -> None:
        """Replace the document at a path.

        Raises:
            StorageError: it could not be written; the earlier one is intact.
        """
        write_private(path, self.model_dump_json(indent=1).encode("utf-8", "surrogatepass"))


def checked_name(name: str) -> str:
    """Return the name of a task.

    Raises:
        InvalidInputError: it is not a short lower-case identifier.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"task name {name!r} must be 1 to 63 of a-z, 0-9, '.', '_', '-'")
    return name


def is_name(name: str) -> bool:
    """Return whether a name from anywhere can be that of a task."""
    return _NAME.fullmatch(name) is not None


def named_digest(text: str) -> str:
    """Return the name of a directory for an identity: its SHA-256 in hexadecimal."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def private_directory(path: Path) -> Path:
    """Make a directory, and those above it that are missing, for their owner alone.

    Raises:
        StorageError: it could not be made.
    """
    try:
        for missing in [directory for directory in (path, *path.parents) if not directory.exists()][::-1]:
            missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(f"could not make {path}: {error.strerror}; free disk space or fix permissions") from error
    return path


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in a private directory (see `write_atomically`)."""
    private_directory(path.parent)
    write_atomically(path, content)


def read_content(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        StorageError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror}") from error


def read_json(path: Path) -> object:
    """Return the content of a JSON file.

    Raises:
        StorageError: it is missing or damaged.
    """
    try:
        return json.loads(read_content(path))
    except ValueError as error:
        raise StorageError(f"{path} is damaged; restore a copy") from error


def delete(path: Path) -> None:
    """Delete a file if it is there; failure is logged, since whoever asked can do nothing about it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.error("file not deleted", path=str(path), reason=error.strerror)


def by_age(paths: list[Path]) -> list[Path]:
    """Return those files that exist, the oldest first."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):  # another process may delete it
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def remove_leftovers(directory: Path) -> None:
    """Delete temporary files that killed processes left behind: old ones, since others are still being written."""
    before = time.time() - _LEFTOVER_SECONDS
    for leftover in directory.rglob(".*.tmp"):
        with suppress(FileNotFoundError):
            if leftover.stat().st_mtime < before:
                delete(leftover)
