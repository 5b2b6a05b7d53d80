"""Heads that were fitted to one map, beside it, so that they need not be fitted again when a silo restarts.

_heads/<map>/<task>.safetensors   the head of a task, and what it follows from
_heads/<map>/<task>.lock          held while one process fits it

They are a cache: one that is damaged, or of an earlier head or profile, is fitted again and replaced.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from sealign.errors import SealignError, StorageError
from sealign.heads import CalibratedHead
from sealign_server.store.files import delete, private_directory

_log = structlog.get_logger()

HEADS = "_heads"
"""Directory beside the files of maps; no task has such a name."""


class FittedHeads:
    """The fitted heads of one map, or of one registration.

    Args:
        owner: file that makes the map or registration; without it there is nothing to keep heads for.
    """

    def __init__(self, owner: Path) -> None:
        self._owner = owner
        self._directory = owner.parent / HEADS / owner.stem

    @contextmanager
    def alone(self, task: str) -> Iterator[None]:
        """Hold a task's head alone among the silo's processes; where nothing can be kept, just go on."""
        try:
            private_directory(self._directory)
            lock = (self._directory / f"{task}.lock").open("w")
        except (OSError, StorageError) as error:
            _log.warning("fitted heads cannot be kept", task=task, reason=str(error))
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def load(self, task: str, made_of: str) -> CalibratedHead | None:
        """Return a task's head; None if there is none that follows from this."""
        path = self._path(task)
        if not path.exists():
            return None
        try:
            return CalibratedHead.load(path, made_of)
        except SealignError as error:
            _log.error("fitted head is damaged; it is fitted again", task=task, reason=str(error))
            return None

    def save(self, task: str, made_of: str, head: CalibratedHead) -> None:
        """Keep a task's head, in place of an earlier one; failure is logged, since the head can be used anyway."""
        try:
            head.save(self._path(task), made_of)
        except StorageError as error:
            _log.warning("fitted heads cannot be kept", task=task, reason=str(error))
        if not self._owner.exists():  # removed meanwhile
            self.clear()

    def remove(self, task: str) -> None:
        """Delete a task's head."""
        delete(self._path(task))
        delete(self._path(task).with_suffix(".lock"))

    def clear(self) -> None:
        """Delete all heads."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._directory)

    def _path(self, task: str) -> Path:
        return self._directory / f"{task}.safetensors"


def remove_fitted(directory: Path, task: str) -> None:
    """Delete a task's heads of all maps and registrations below a directory."""
    for suffix in ("safetensors", "lock"):
        for path in directory.glob(f"*/{HEADS}/*/{task}.{suffix}"):
            delete(path)
