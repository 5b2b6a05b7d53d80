"""Rows that are too many for memory: written to a file part by part and mapped, resumable where they are dear."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from sealign.errors import StorageError
from sealign.files.atomic import PRIVATE

AT_ONCE = 4096
"""Rows in memory at once, of arrays that are mapped from a file."""

_LARGEST = float(np.finfo(np.float16).max)


def half_precision(rows: NDArray[np.floating]) -> NDArray[np.float16]:
    """Return rows as float16; numbers beyond its range become the largest."""
    halved: NDArray[np.float16] = np.clip(rows, -_LARGEST, _LARGEST).astype(np.float16)
    return halved


def row_parts(rows: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    """Return all rows (n, d), 4,096 at a time."""
    return (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))


def resumed_rows(
    path: Path, counts: Sequence[int], width: int, read: Callable[[int], Iterable[NDArray[np.floating]]]
) -> NDArray[np.float16]:
    """Return rows (n, width) mapped from a file, read-only, after computing those that the file lacks.

    The file holds nothing but float16 numbers: its length says how many parts are complete. Memory does not grow with
    the number of rows.

    Args:
        path: of the file; its name stands for all that decides the rows. It grows where ``counts`` does.
        counts: rows of each part, such as a text.
        width: columns.
        read: given how many parts are complete, computes the parts that follow.

    Raises:
        StorageError: the file cannot be written, or ``read`` gives other parts than ``counts`` says.
    """
    ends = np.cumsum([0, *counts], dtype=np.int64) * width * np.dtype(np.float16).itemsize
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE), "r+b") as stream:
            _wait_alone(stream)  # a second process then finds all parts
            done = int(np.searchsorted(ends, stream.seek(0, os.SEEK_END), side="right")) - 1
            if done < len(counts):
                stream.truncate(stream.seek(int(ends[done])))
                for number, rows in enumerate(read(done), done):
                    if number >= len(counts) or rows.shape != (counts[number], width):
                        raise StorageError(f"part {number} of {path} has shape {rows.shape}, which was not announced.")
                    stream.write(half_precision(rows).data)
                    stream.flush()
                if stream.tell() != ends[-1]:
                    raise StorageError(f"parts of {path} are missing. Read the texts again.")
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}. Free disk space, then resume."
        ) from error
    return mapped_rows(path, (sum(counts), width))


def _wait_alone(stream: IO[bytes]) -> None:
    """Wait until no other process writes the file. Windows has no such lock: there, one at a time is up to the user."""
    if sys.platform != "win32":
        import fcntl  # which clients on Windows do without

        fcntl.flock(stream, fcntl.LOCK_EX)


class RowSpool:
    """Rows in a nameless file, which vanishes with them.

    Args:
        directory: of the file; it should not be in memory.
        width: columns.

    Raises:
        StorageError: the file cannot be made.
    """

    def __init__(self, directory: Path, width: int) -> None:
        self._directory, self._width, self._count = directory, width, 0
        with self._errors():
            directory.mkdir(parents=True, exist_ok=True)
            self._stream = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - lives as long as the spool

    def append(self, rows: NDArray[np.floating]) -> None:
        """Add rows, (k, width).

        Raises:
            StorageError: they cannot be written.
        """
        with self._errors():
            self._stream.write(half_precision(rows).data)
        self._count += len(rows)

    def rows(self) -> NDArray[np.float16]:
        """Return all rows, (n, width), mapped from the file; they outlive the spool.

        Raises:
            StorageError: they cannot be written.
        """
        with self._errors():
            self._stream.flush()
        return mapped_rows(self._stream, (self._count, self._width))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"could not write to {self._directory}: {reason}. Free disk space.") from error


def spilled_rows(parts: Iterable[NDArray[np.floating]], width: int, directory: Path) -> NDArray[np.float16]:
    """Return rows (n, width), which come in parts, mapped from a nameless file in a directory.

    Raises:
        StorageError: the file cannot be written.
    """
    spool = RowSpool(directory, width)
    for rows in parts:
        spool.append(rows)
    return spool.rows()


def mapped_rows(file: Path | IO[bytes], shape: tuple[int, int]) -> NDArray[np.float16]:
    """Return float16 rows mapped from a file that holds nothing else, read-only.

    Raises:
        StorageError: the file is missing, or holds another number of rows.
    """
    try:
        whole = np.memmap(file, dtype=np.float16, mode="r") if all(shape) else np.empty(0, np.float16)
        return whole.reshape(shape)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"could not map {file}: it is missing or cut. Delete it and read the texts again."
        ) from error
