"""A file that SEAL can save to and load from, one for each thread: its binding takes nothing but paths.

On Linux it is a memory file, which stays open: no descriptor is made for a query. Elsewhere it is a temporary file
that only its owner can read, removed when its thread or the process ends.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from threading import local
from typing import Protocol


class Scratch(Protocol):
    """A file of one thread. What was in it is gone with the next write."""

    path: str

    def write(self, content: bytes) -> None:
        """Replace the content."""

    def read(self) -> bytes:
        """Return the content."""


class MemoryFile:
    """A file in memory (memfd) under its name in /proc."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("sealign", os.MFD_CLOEXEC)
        self.path = f"/proc/self/fd/{self._descriptor}"
        weakref.finalize(self, os.close, self._descriptor)

    def write(self, content: bytes) -> None:
        """Replace the content."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)

    def read(self) -> bytes:
        """Return the content."""
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)


class TemporaryFile:
    """A file in the system's directory for temporary files, mode 0600."""

    def __init__(self) -> None:
        descriptor, self.path = tempfile.mkstemp(prefix="sealign-")
        os.close(descriptor)
        weakref.finalize(self, Path(self.path).unlink, missing_ok=True)

    def write(self, content: bytes) -> None:
        """Replace the content."""
        Path(self.path).write_bytes(content)

    def read(self) -> bytes:
        """Return the content."""
        return Path(self.path).read_bytes()


def has_memory_files() -> bool:
    """Return whether this system has memory files, and names for them."""
    return hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()


class _Threads(local):
    def __init__(self) -> None:
        self.file: Scratch = MemoryFile() if has_memory_files() else TemporaryFile()


_threads = _Threads()


def scratch() -> Scratch:
    """Return this thread's file."""
    return _threads.file


def _forget() -> None:
    """Leave the parent's files to it: after a fork both processes would write to the same."""
    global _threads
    _threads = _Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
