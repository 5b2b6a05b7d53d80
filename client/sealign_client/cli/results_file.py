"""Results in a file, written such that a run that was killed goes on where it stopped: no row is lost or repeated.

Results go to FILE.partial. FILE.journal says how many rows and bytes of it are certain; it is replaced after they have
reached the disk. At the end, the partial file becomes FILE and the journal is deleted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from sealign.errors import InvalidInputError, StorageError
from sealign_client.cli.formats import Answer, ResultFormat, Writer

_SECONDS = 1.0
"""Time between two entries of the journal."""


class ResultsFile:
    """A file of results. Use it as a context manager; it is complete if no error leaves the block.

    Args:
        path: the file, .csv, .tsv or .jsonl.
        about: what the results are of; an interrupted file of something else is refused.

    Attributes:
        done: rows of the input that need not be classified any more.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path = path
        self._writer = Writer(ResultFormat.of(path))
        if path.exists():
            raise InvalidInputError(f"{path} exists already. Delete it, or choose another output.")
        self._partial, self._journal = (path.with_name(path.name + end) for end in (".partial", ".journal"))
        self._about = dict(about)
        self.done, self._bytes = self._found()
        self._noted = time.monotonic()

    def _found(self) -> tuple[int, int]:
        """Return rows and bytes that an interrupted run has left."""
        try:
            content = json.loads(self._journal.read_bytes())
            about, rows, size = content["about"], int(content["rows"]), int(content["bytes"])
        except FileNotFoundError:
            return 0, 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self._journal} is damaged. Delete it to begin anew.") from error
        if about != self._about:
            changed = ", ".join(name for name in self._about if about.get(name) != self._about[name])
            raise InvalidInputError(
                f"{self._journal} is of an interrupted run with other settings or another input ({changed}). Delete it "
                "to begin anew."
            )
        if not self._partial.exists() or self._partial.stat().st_size < size:
            raise StorageError(f"{self._partial} is shorter than {self._journal} says. Delete both to begin anew.")
        return rows, size

    def __enter__(self) -> ResultsFile:
        with self._writing():
            descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT, 0o600)
            self._stream = os.fdopen(descriptor, "wb")
            self._stream.truncate(self._bytes)
            self._stream.seek(self._bytes)
            if not self._bytes:
                self._stream.write(self._writer.head().encode())
        return self

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"could not write {self._partial}: {error.strerror or error}") from error

    def write(self, answer: Answer | None, rows: int) -> None:
        """Add an answer; None for a row that is skipped.

        Args:
            answer: of the last row.
            rows: of the input that are done with it.

        Raises:
            StorageError: it could not be written, as on a full disk; the journal says what is certain.
        """
        with self._writing():
            if answer is not None:
                self._stream.write(self._writer.line(answer).encode("utf-8", "backslashreplace"))
            self.done = rows
            if time.monotonic() - self._noted >= _SECONDS:
                self._note()

    def _note(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        content = {"about": self._about, "rows": self.done, "bytes": self._stream.tell()}
        from sealign.files import write_atomically

        write_atomically(self._journal, json.dumps(content).encode())
        self._noted = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, StorageError):  # what is buffered cannot be written either
            with suppress(OSError):
                self._stream.close()
            return
        with self._writing(), self._stream:
            self._note()
        if kind is None:
            self._partial.replace(self._path)
            self._journal.unlink(missing_ok=True)
