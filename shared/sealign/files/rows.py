"""Rows that are too many for memory: written to a file part by part and mapped, resumable where they are dear.

A file ends with the SHA-256 of its rows, which is compared once, when it is opened: 0.5 to 1.5 GB a second.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from sealign.errors import StorageError
from sealign.files.atomic import PRIVATE, replacing

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_Number = TypeVar("_Number", np.float16, np.float32)

AT_ONCE = 4096
"""Rows in memory at once, of arrays that are mapped from a file."""

_SEAL_BYTES = sha256().digest_size
_CHUNK_BYTES = 1 << 20
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

    The file holds float16 numbers and, once all parts are there, their SHA-256. Until then its length says how many
    parts are complete. Memory does not grow with the number of rows.

    Args:
        path: of the file; its name stands for all that decides the rows.
        counts: rows of each part, such as a text.
        width: columns.
        read: given how many parts are complete, computes the parts that follow.

    Raises:
        StorageError: the file cannot be written, is damaged, or ``read`` gives other parts than ``counts`` says.
    """
    ends = np.cumsum([0, *counts], dtype=np.int64) * width * np.dtype(np.float16).itemsize
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE), "r+b") as stream:
            _wait_alone(stream)  # a second process then finds all parts
            size = stream.seek(0, os.SEEK_END)
            if size < ends[-1] + _SEAL_BYTES:
                done = int(np.searchsorted(ends, size, side="right")) - 1
                seal = _seal_of(stream, int(ends[done]))
                for number, rows in enumerate(read(done) if done < len(counts) else (), done):
                    if number >= len(counts) or rows.shape != (counts[number], width):
                        raise StorageError(f"part {number} of {path} has shape {rows.shape}, which was not announced.")
                    _append(stream, seal, half_precision(rows))
                    stream.flush()
                if stream.tell() != ends[-1]:
                    raise StorageError(f"parts of {path} are missing. Read the texts again.")
                stream.write(seal.digest())
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}. Free disk space, then resume."
        ) from error
    return load_rows(path, width, "Delete it, then read the texts again.")


def save_rows(path: Path, rows: NDArray[np.floating]) -> None:
    """Store rows (n, width) with their SHA-256, atomically; they need not be in memory.

    Raises:
        StorageError: the file could not be written; the old file stays.
    """
    with replacing(path, PRIVATE) as stream:
        seal = sha256()
        for part in row_parts(rows):
            _append(stream, seal, np.ascontiguousarray(part))
        stream.write(seal.digest())


def load_rows(
    path: Path,
    width: int,
    remedy: str,
    kind: type[_Number] = np.float16,  # type: ignore[assignment]
    *,
    verify: bool = True,
) -> NDArray[_Number]:
    """Return all rows (n, width) of a file, mapped and read-only.

    Args:
        path: of a file that :func:`resumed_rows` has completed or :func:`save_rows` has written.
        width: columns.
        remedy: what to do about a damaged file, for the error.
        kind: of the numbers.
        verify: compare them with their SHA-256, which reads the whole file.

    Raises:
        StorageError: the file is missing, cut or damaged.
    """
    try:
        whole = np.memmap(path, dtype=np.uint8, mode="r")
        content = whole[:-_SEAL_BYTES]
        rows: NDArray[_Number] = content.view(kind).reshape(-1, width)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} is missing or cut. {remedy}") from error
    if verify and _digest(content) != whole[-_SEAL_BYTES:].tobytes():
        raise StorageError(f"{path} is damaged: its rows are not those that were written. {remedy}")
    return rows


def _digest(content: NDArray[np.uint8]) -> bytes:
    seal = sha256()
    for start in range(0, len(content), _CHUNK_BYTES):
        seal.update(content[start : start + _CHUNK_BYTES].data)
    return seal.digest()


def _seal_of(stream: BinaryIO, size: int) -> Hash:
    """Return the hash of a file's first bytes, and cut the file after them."""
    stream.seek(0)
    seal, left = sha256(), size
    while left:
        content = stream.read(min(left, _CHUNK_BYTES))
        seal.update(content)
        left -= len(content)
    stream.truncate()
    return seal


def _append(stream: BinaryIO, seal: Hash, rows: NDArray[np.floating]) -> None:
    stream.write(rows.data)
    seal.update(rows.data)


def _wait_alone(stream: BinaryIO) -> None:
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
            whole = np.memmap(self._stream, np.float16, mode="r") if self._count else np.empty(0, np.float16)
        return whole.reshape(self._count, self._width)

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
