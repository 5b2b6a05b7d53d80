"""Tells a file that was replaced from the earlier one, without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = "tuple[int, int, int]"


def stamp_of(path: Path) -> Stamp | None:
    """Return a file's inode, time of change in ns, and size in bytes; None if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
