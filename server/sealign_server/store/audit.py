"""The audit trail: one line per record, each bound to the one before by its hash, in files that are appended to.

A line is a JSON object that ends in ``,"hash":"…"}``. The hash is SHA-256 of the bytes before that ending. `previous`
holds the hash of the line before, across files. Several processes append to one chain, one after the other under a
file lock. A record is with the operating system when :meth:`AuditTrail.append` returns, so that no process's death
loses it; :meth:`AuditTrail.sync` brings it to the disk.

audit/current.jsonl           the newest records
audit/<number>.jsonl          earlier ones, by the number of their first record, twenty digits
audit/lock                    held while a record is appended
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

from sealign.errors import StorageError
from sealign_server.store.files import private_directory
from sealign_server.store.signing import SigningKeys

Fact = str | int | float

FIRST_PREVIOUS = "0" * 64
"""What the first record names as the hash before it."""
CHECKPOINT = "checkpoint"
HASH_LENGTH = len(',"hash":""}\n') + 64
CURRENT, _LOCK = "current.jsonl", "lock"
RECORDS_PER_CHECKPOINT = 1000
"""After each record whose number is a multiple of this one, a checkpoint follows, unless the record is one."""
_MAX_TEXT = 1000
_encoded = json.JSONEncoder(separators=(",", ":")).encode
_TAIL_BYTES = 64 << 10
"""More than a record can have."""


class AuditTrail:
    """The audit trail of one silo, as one process appends to it.

    Args:
        directory: of its files; made when the first record is appended.
        keys: sign checkpoints.
        segment_bytes: size beyond which a file is closed and the next one begun.
    """

    def __init__(self, directory: Path, keys: SigningKeys, segment_bytes: int = 64 << 20) -> None:
        self.directory = directory
        self._keys = keys
        self._segment_bytes = segment_bytes
        self._current = directory / CURRENT
        self._lock = Lock()
        self._lock_file = self._file = -1
        self._end = -1
        self._number, self._hash = 0, FIRST_PREVIOUS
        self._is_checked = True

    def append(self, kind: str, identity: str, facts: Mapping[str, Fact]) -> None:
        """Append a record; texts longer than 1,000 characters are cut.

        Args:
            kind: of deed, for example "query".
            identity: whose deed it is.
            facts: names and counts; never content.

        Raises:
            StorageError: it could not be written; the deed must not be done.
        """
        with self._alone():
            if self._number % RECORDS_PER_CHECKPOINT == 0 and not self._is_checked:
                self._write_checkpoint()
            self._write(kind, identity, facts)

    def checkpoint(self) -> tuple[int, str]:
        """Sign the chain's end, unless it is signed, and return its number and hash.

        Raises:
            StorageError: the signature could not be written.
        """
        with self._alone():
            if not self._is_checked:
                self._write_checkpoint()
            return self._number, self._hash

    def sync(self) -> None:
        """Bring what this process knows of to the disk."""
        with self._lock:
            if self._file >= 0:
                os.fsync(self._file)

    def close(self) -> None:
        """Close files; a later record opens them again."""
        with self._lock:
            for file in (self._file, self._lock_file):
                if file >= 0:
                    os.close(file)
            self._file = self._lock_file = self._end = -1

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of all processes, with the chain's end known."""
        try:
            with self._lock:
                if self._lock_file < 0:
                    private_directory(self.directory)
                    self._lock_file = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock_file, fcntl.LOCK_EX)
                try:
                    self._find_end()
                    yield
                finally:
                    fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        except OSError as error:
            raise StorageError(
                f"could not write the audit trail in {self.directory}: {error.strerror or error}. Free disk space or "
                "fix permissions, then try again."
            ) from error

    def _find_end(self) -> None:
        """Open the newest file and learn the last record's number and hash, if another process has written since."""
        try:
            known = self._file >= 0 and os.path.samestat(os.fstat(self._file), self._current.stat())
        except FileNotFoundError:
            known = False
        if not known:
            if self._file >= 0:
                os.close(self._file)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file, self._end = os.open(self._current, flags, 0o600), -1
        size = os.fstat(self._file).st_size
        if size != self._end:
            self._end = size - self._drop_torn(size)
            last = last_line(self._file, self._end) if self._end else self._last_of_earlier()
            self._number, self._hash, self._is_checked = 0, FIRST_PREVIOUS, True
            if last:
                record = _parsed(last, self.directory)
                self._number, self._hash = record["n"], record["hash"]
                self._is_checked = record["kind"] == CHECKPOINT

    def _drop_torn(self, size: int) -> int:
        """Cut off what a process was writing when it was killed, and return how many bytes; nobody relied on it."""
        start = max(0, size - _TAIL_BYTES)
        torn = len(os.pread(self._file, size - start, start).rpartition(b"\n")[2])
        if torn:
            os.ftruncate(self._file, size - torn)
        return torn

    def _last_of_earlier(self) -> bytes:
        earlier = segments(self.directory)
        if not earlier:
            return b""
        with earlier[-1].open("rb") as stream:
            return last_line(stream.fileno(), os.fstat(stream.fileno()).st_size)

    def _write(self, kind: str, identity: str, facts: Mapping[str, Fact]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        record = {
            "n": self._number + 1,
            "at": now,
            "kind": kind,
            "identity": identity[:_MAX_TEXT],
            "facts": {name: value[:_MAX_TEXT] if isinstance(value, str) else value for name, value in facts.items()},
            "previous": self._hash,
        }
        body = _encoded(record).encode()[:-1]
        digest = sha256(body).hexdigest()
        line = body + b',"hash":"' + digest.encode() + b'"}\n'
        begun, self._end = self._end, -1  # until it is whole
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, begun)
            raise OSError(None, "the disk is full")
        self._number, self._hash, self._end = self._number + 1, digest, begun + len(line)
        self._is_checked = kind == CHECKPOINT
        if self._end > self._segment_bytes:
            self._close_segment()

    def _close_segment(self) -> None:
        """Give the file the name of its first record; the next record begins a file."""
        os.fsync(self._file)
        first = json.loads(os.pread(self._file, _TAIL_BYTES, 0).partition(b"\n")[0])["n"]
        self._current.rename(self.directory / f"{first:020d}.jsonl")
        self._find_end()

    def _write_checkpoint(self) -> None:
        key, signature = self._keys.sign(signed_bytes(self._number, self._hash))
        self._write(CHECKPOINT, "", {"of": self._number, "signature": signature.hex(), "key": key.hex()})


def _parsed(line: bytes, directory: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(line)
        int(record["n"]), bytes.fromhex(record["hash"]), str(record["kind"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"the last record of the audit trail in {directory} is damaged. Run sealign-server audit verify, keep the "
            "directory as evidence, and move it away so that a new trail begins."
        ) from error
    return record


def segments(directory: Path) -> list[Path]:
    """Return the files before the current one, the oldest first."""
    return sorted(path for path in directory.glob("*.jsonl") if path.stem.isdigit())


def signed_bytes(number: int, digest: str) -> bytes:
    """Return what a checkpoint's signature is of: the number and the hash of the record before it."""
    return f"sealign audit checkpoint v1\n{number}\n{digest}\n".encode()


def last_line(file: int, size: int) -> bytes:
    """Return the last line of a file that ends in a line break; empty for an empty file."""
    start = max(0, size - _TAIL_BYTES)
    return os.pread(file, size - start, start).rstrip(b"\n").rpartition(b"\n")[2]
