"""The silo's signing key: cards and the audit trail's checkpoints are signed with it.

signing/keys.json             the private key, and how it came after those before it
signing/lock                  held while keys.json is made or replaced
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealign.errors import StorageError
from sealign.protocol.signing import MAX_KEY_CHANGES, KeyChange, key_change_content, keys_after
from sealign_server.store.files import Document, private_directory


class _Change(Document):
    before: str
    after: str
    signature: str
    at: str


class _SigningDocument(Document):
    """keys.json, in hexadecimal; the newest change last."""

    format_version: Literal[1] = 1
    key: str
    changes: tuple[_Change, ...] = ()


@dataclass(frozen=True)
class _Held:
    """What the file held when it was read."""

    stamp: tuple[int, int, int]
    key: Ed25519PrivateKey
    public: bytes
    changes: tuple[KeyChange, ...]


class SigningKeys:
    """The signing key in a file, mode 0600, which is made when it is first needed. Another process may rotate it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: _Held | None = None
        self._lock = Lock()

    def sign(self, content: bytes) -> tuple[bytes, bytes]:
        """Return the public key, 32 bytes, and its Ed25519 signature of the content, 64 bytes.

        Raises:
            StorageError: the file is damaged, or cannot be read or made.
        """
        held = self._current()
        return held.public, held.key.sign(content)

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes: what clients pin."""
        return self._current().public

    @property
    def changes(self) -> tuple[KeyChange, ...]:
        """How the present key came after those before it, the newest last."""
        return self._current().changes

    def known(self, trusted: bytes | None = None) -> frozenset[bytes]:
        """Return the public keys that signed for this silo: the present one, and those that lead to it.

        Args:
            trusted: a key from elsewhere; only those that came after it, or led to it, are returned.
        """
        held = self._current()
        anchor = held.public if trusted is None else trusted
        before = {change.before for change in held.changes if anchor in keys_after(change.before, held.changes)}
        return keys_after(anchor, held.changes) | before

    def rotate(self) -> bytes:
        """Make a new key, which the present one signs, and return its public part. Workers use it at once.

        Raises:
            StorageError: the file could not be written; the present key stays.
        """
        self._current()  # made, if it never was
        with self._alone():
            held = self._current()
            key = Ed25519PrivateKey.generate()
            public = key.public_key().public_bytes_raw()
            signature = held.key.sign(key_change_content(held.public, public))
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            change = _Change(before=held.public.hex(), after=public.hex(), signature=signature.hex(), at=now)
            earlier = _SigningDocument.read(self.path).changes[-MAX_KEY_CHANGES + 1 :]
            _SigningDocument(key=key.private_bytes_raw().hex(), changes=(*earlier, change)).write(self.path)
        return public

    def _current(self) -> _Held:
        """Return the key, read anew if the file was replaced."""
        with self._lock:
            try:
                stamp = _stamp(self.path)
            except FileNotFoundError:
                self._make()
                stamp = _stamp(self.path)
            except OSError as error:
                raise StorageError(f"could not read {self.path}: {error.strerror}") from error
            if self._held is None or self._held.stamp != stamp:
                self._held = self._read(stamp)
            return self._held

    def _read(self, stamp: tuple[int, int, int]) -> _Held:
        document = _SigningDocument.read(self.path)
        try:
            key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(document.key))
            changes = tuple(
                KeyChange(*(bytes.fromhex(value) for value in (change.before, change.after, change.signature)))
                for change in document.changes
            )
        except ValueError as error:
            raise StorageError(
                f"{self.path} is damaged; restore a copy, or clients that pinned the key refuse the silo"
            ) from error
        return _Held(stamp, key, key.public_key().public_bytes_raw(), changes)

    def _make(self) -> None:
        """Make the first key, unless another process has made one meanwhile."""
        key = Ed25519PrivateKey.generate()
        with self._alone():
            if not self.path.exists():
                _SigningDocument(key=key.private_bytes_raw().hex()).write(self.path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of all processes that write the file."""
        private_directory(self.path.parent)
        lock = os.open(self.path.with_name("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
