"""Replacing a file in one step."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sealign.errors import StorageError

PRIVATE = 0o600
"""Mode of a file that its owner alone can read."""

PUBLIC = 0o644
"""Mode of a file that everybody may read, such as a certificate or a report."""


def write_atomically(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Replace the file at ``path`` by ``content``.

    Raises:
        StorageError: the file could not be written (disk full, permissions); the old file stays.
    """
    with replacing(path, mode) as stream:
        stream.write(content)


@contextmanager
def replacing(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Open a file beside ``path``; at the end sync it and give it the name, unless an error came up.

    Raises:
        StorageError: the file could not be written; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}. The previous file, if any, is intact. "
            "Free disk space or fix permissions, then try again."
        ) from error


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
