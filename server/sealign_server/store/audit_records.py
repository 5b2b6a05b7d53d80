"""Reading the audit trail, and finding what was done to it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from sealign.errors import NotFoundError, StorageError
from sealign.protocol.signing import is_signed
from sealign_server.store.audit import (
    CHECKPOINT,
    CURRENT,
    FIRST_PREVIOUS,
    HASH_LENGTH,
    RECORDS_PER_CHECKPOINT,
    segments,
    signed_bytes,
)


@dataclass(frozen=True)
class AuditRecord:
    """One record of the audit trail.

    Attributes:
        number: from 1, without gaps.
        at: when, UTC, ISO 8601.
        kind: of deed.
        identity: whose deed it was; empty for the silo's own.
        facts: names and counts.
        previous: hash of the record before.
        digest: hash of this one.
        line: as it stands in the file.
    """

    number: int
    at: str
    kind: str
    identity: str
    facts: dict[str, Any]
    previous: str
    digest: str
    line: bytes = field(repr=False)

    @classmethod
    def parse(cls, line: bytes, place: str) -> AuditRecord:
        """Return the record of a line, its line break included.

        Raises:
            StorageError: the line is no record.
        """
        try:
            value = json.loads(line)
            about = value["n"], value["at"], value["kind"], value["identity"]
            record = cls(*about, value["facts"], value["previous"], value["hash"], line)
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"{place} is no record: it was changed, or the disk is damaged") from None
        if not isinstance(record.number, int) or not isinstance(record.facts, dict):
            raise StorageError(f"{place} is no record: it was changed, or the disk is damaged")
        return record

    @property
    def is_intact(self) -> bool:
        """Whether the line is what its hash is of."""
        return (
            self.line[-HASH_LENGTH:] == f',"hash":"{self.digest}"}}\n'.encode()
            and sha256(self.line[:-HASH_LENGTH]).hexdigest() == self.digest
        )


@dataclass(frozen=True)
class Verified:
    """What a whole chain comes to.

    Attributes:
        records: that were checked.
        number, digest: of the last record.
        signed: number of the last record that a checkpoint signs; 0 for none.
        torn: bytes of a record that a process was writing when it was killed.
    """

    records: int
    number: int
    digest: str
    signed: int
    torn: int


def audit_records(directory: Path, after: int = 0) -> Iterator[AuditRecord]:
    """Yield the records in order; a last one that was never finished is left out.

    Args:
        directory: of the trail.
        after: number of a record that is known; files that hold none after it are not read.

    Raises:
        NotFoundError: there is no audit trail.
        StorageError: a line is no record, or a file cannot be read.
    """
    for line, place in _lines(directory, after):
        if line.endswith(b"\n"):
            yield AuditRecord.parse(line, place)


def verify_audit(
    directory: Path, keys: Collection[bytes], *, begins_at: int = 1, expected: tuple[int, str] | None = None
) -> Verified:
    """Check every record, and return what the chain comes to.

    Args:
        directory: of the trail.
        keys: public keys that may sign checkpoints.
        begins_at: number of the first record that is here, if earlier files were archived.
        expected: a record's number and hash, written down earlier: finds an end that was cut off.

    Raises:
        NotFoundError: there is no audit trail.
        StorageError: a record was changed, is missing or out of order, a signature is wrong, or a file is damaged.
    """
    chain = _Chain(begins_at, keys, expected)
    torn = 0
    for line, place in _lines(directory):
        if not line.endswith(b"\n"):
            if not place.endswith(CURRENT):
                raise StorageError(f"{place} is cut off")
            torn = len(line)
            break
        chain.add(AuditRecord.parse(line, place), place)
    if expected is not None and expected[0] > chain.number:
        raise StorageError(f"the trail ends with record {chain.number}: records up to {expected[0]} were cut off")
    return Verified(chain.count, chain.number, chain.digest, chain.signed, torn)


class _Chain:
    """The chain as far as it was checked."""

    def __init__(self, begins_at: int, keys: Collection[bytes], expected: tuple[int, str] | None) -> None:
        self._keys = keys
        self._expected = expected
        self._previous: str | None = FIRST_PREVIOUS if begins_at == 1 else None
        self.number = begins_at - 1
        self.digest = FIRST_PREVIOUS
        self.count = self.signed = 0
        self._is_checked = True

    def add(self, record: AuditRecord, place: str) -> None:
        """Check that a record is intact, follows the one before it, and is signed when it must be."""
        number = self.number + 1
        if not record.is_intact:
            raise StorageError(f"{place}: record {record.number} was changed")
        if record.number > number:
            raise StorageError(f"{place}: records {number} to {record.number - 1} are missing")
        if record.number < number:
            raise StorageError(f"{place}: record {record.number} is out of order, after record {self.number}")
        if self._previous not in (None, record.previous):
            raise StorageError(f"{place}: record {number} does not follow the record {self.number} that stands here")
        if record.kind == CHECKPOINT:
            self._check_signature(record, place)
        elif self.number % RECORDS_PER_CHECKPOINT == 0 and not self._is_checked:
            raise StorageError(f"{place}: there is no checkpoint after record {self.number}")
        if self._expected is not None and self._expected[0] == number and self._expected[1] != record.digest:
            raise StorageError(f"{place}: record {number} has another hash than the one written down")
        self.number, self.digest, self._previous = number, record.digest, record.digest
        self._is_checked = record.kind == CHECKPOINT
        self.count += 1

    def _check_signature(self, record: AuditRecord, place: str) -> None:
        try:
            key, signature = (bytes.fromhex(str(record.facts.get(name))) for name in ("key", "signature"))
        except ValueError:
            key = signature = b""
        if key and key not in self._keys:
            raise StorageError(
                f"{place}: checkpoint {record.number} is signed by key {key.hex()}, which is none of this silo's"
            )
        if not is_signed(key, signature, signed_bytes(record.number - 1, record.previous)):
            raise StorageError(f"{place}: the signature of checkpoint {record.number} is wrong")
        self.signed = record.number - 1


def _lines(directory: Path, after: int = 0) -> Iterator[tuple[bytes, str]]:
    """Yield the lines of all files with a name of their place; the last may lack its line break."""
    with ExitStack() as opened:
        try:
            # The newest first: if it is closed meanwhile, it is among the others as well, under another name.
            newest = [opened.enter_context(path.open("rb")) for path in (directory / CURRENT,) if path.exists()]
            known = {os.fstat(stream.fileno()).st_ino for stream in newest}
            earlier = segments(directory)
            begun = [path for path in earlier if int(path.stem) <= after]
            streams = [(path.name, opened.enter_context(path.open("rb"))) for path in earlier[max(0, len(begun) - 1) :]]
            files = [(name, stream) for name, stream in streams if os.fstat(stream.fileno()).st_ino not in known]
            files += [(CURRENT, stream) for stream in newest]
            if not files:
                raise NotFoundError(f"there is no audit trail in {directory}; it begins when the silo is first served")
            for name, stream in files:
                for number, line in enumerate(stream, 1):
                    yield line, f"line {number} of {name}"
        except OSError as error:
            raise StorageError(f"could not read the audit trail in {directory}: {error.strerror}") from error
