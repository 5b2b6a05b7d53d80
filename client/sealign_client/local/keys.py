"""The client's secret keys for queries, one per parameter set, each replaced before it has told too much.

A key counts what its replies may tell a malicious silo (`sealign.ckks.LeakageMeter`). When it is exhausted, or after a
decryption that failed, a new one takes its place: it costs a millisecond, and some kilobytes in the next request.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from sealign.ckks import ParameterSet, SecretKey, SecurityTable, reply_bits_told

_AHEAD = 64
"""Replies that a stored key counts ahead, so that it is written once per so many; unused ones are lost in a crash."""


@dataclass(frozen=True)
class KeyStore:
    """Where keys are stored between runs, and by which table they live.

    Attributes:
        directory: None for keys that live as long as the client.
        passphrase: protects the files.
        table: decides how much a key may tell.
    """

    directory: Path | None = None
    passphrase: str | None = None
    table: SecurityTable = SecurityTable.CLASSICAL

    def path(self, parameters: ParameterSet) -> Path | None:
        """Return the file of a parameter set's key; None if keys are not stored."""
        return None if self.directory is None else self.directory / f"{parameters.name}.key"

    def paths(self) -> Iterator[Path]:
        """Yield the files of all keys."""
        if self.directory is not None and self.directory.is_dir():
            yield from sorted(self.directory.glob("*.key"))


class KeyRing:
    """Makes keys when they are first needed, and replaces those that are exhausted. Safe to share between threads.

    Args:
        store: whether and where keys are stored.
    """

    def __init__(self, store: KeyStore | None = None) -> None:
        self._store = store or KeyStore()
        self._keys: dict[str, SecretKey] = {}
        self._saved: dict[bytes, float] = {}
        self._lock = Lock()

    @property
    def are_stored(self) -> bool:
        """Whether keys are written to files."""
        return self._store.directory is not None

    def key_for(
        self,
        parameters: ParameterSet,
        *,
        rows: int,
        labels: int,
        verified: bool = False,
        held: SecretKey | None = None,
    ) -> SecretKey:
        """Return a key that has counted one more reply; see `LeakageMeter.spend` for the other arguments.

        Args:
            held: key of the exchange that asks. It changes when it has told what it may, whatever failed meanwhile:
                a silo that sees a change learns from its own count alone.

        Raises:
            StorageError, InvalidInputError: a stored key cannot be read, opened or written.
        """
        with self._lock:
            if held is not None and held.spend(rows=rows, labels=labels, verified=verified, concealing=True):
                key = held
            else:
                key = self._keys[parameters.name] = self._fresh(parameters, rows, labels, verified)
            if key.leakage.spent > self._saved.get(key.public_key.id, -1.0):
                self._save(key, _AHEAD, reply_bits_told(rows, labels, verified=verified))
            return key

    def retire(self, key: SecretKey) -> None:
        """Give a key to no other exchange: a reply under it did not decrypt.

        Raises:
            StorageError: that could not be written to its file.
        """
        with self._lock:
            key.leakage.fail()
            self._save(key)

    def close(self) -> None:
        """Write to the files what keys have told.

        Raises:
            StorageError: a file could not be written.
        """
        with self._lock:
            for key in self._keys.values():
                self._save(key)

    def _fresh(self, parameters: ParameterSet, rows: int, labels: int, verified: bool) -> SecretKey:
        """Return the current key if it may answer one more reply, or a new one."""
        key = self._keys.get(parameters.name) or self._stored(parameters)
        if key is None or key.exhausted or not key.spend(rows=rows, labels=labels, verified=verified):
            key = SecretKey.generate(parameters, self._store.table)
            key.spend(rows=rows, labels=labels, verified=verified)
        return key

    def _stored(self, parameters: ParameterSet) -> SecretKey | None:
        path = self._store.path(parameters)
        if path is None or not path.exists():
            return None
        return SecretKey.load(path, self._store.passphrase, self._store.table)

    def _save(self, key: SecretKey, replies: int = 0, bits: float = 0.0) -> None:
        """Store a key as if it had told so many more replies, if keys are stored and it is the current one."""
        path = self._store.path(key.parameters)
        if path is None or self._keys.get(key.parameters.name) is not key:
            return
        ahead, told = copy(key), key.leakage
        ahead.leakage = replace(told, spent=told.spent + replies * bits, replies=told.replies + replies)
        ahead.save(path, self._store.passphrase)
        self._saved[key.public_key.id] = ahead.leakage.spent
