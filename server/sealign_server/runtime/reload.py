"""One serving process tells the others of its directory's owner which it is, so that they can ask it to reload."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sealign.errors import StorageError, UnavailableError


@contextmanager
def known_as_serving(path: Path) -> Iterator[None]:
    """Hold a file that names this process while inside; several silos of one directory share it, the last by name.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"could not write {path}: {error.strerror}; fix permissions, then try again") from error
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def ask_to_reload(path: Path) -> int:
    """Send SIGHUP to the process that a file names, if it holds the file, and return its number.

    Raises:
        UnavailableError: no process of this machine serves the directory, or it cannot be asked.
    """
    nobody = UnavailableError(f"no silo is served from {path.parent} on this machine; nothing was reloaded")
    try:
        number = int(path.read_text().strip())
        held = path.stat()
        # A number may be another process's by now, or one of another container: only the holder is signalled.
        files = list(Path(f"/proc/{number}/fd").iterdir())
    except (OSError, ValueError):
        raise nobody from None
    if not any(_is(file, held) for file in files):
        raise nobody
    try:
        os.kill(number, signal.SIGHUP)
    except OSError as error:
        raise UnavailableError(
            f"process {number} serves {path.parent} and cannot be asked: {error.strerror}"
        ) from error
    return number


def _is(file: Path, held: os.stat_result) -> bool:
    try:
        return os.path.samestat(file.stat(), held)
    except OSError:
        return False
