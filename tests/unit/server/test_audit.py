"""The audit trail: one chain of several processes, and what verification finds. `test_kills.py` kills them."""

from __future__ import annotations

import json
import re
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from sealign.errors import NotFoundError, StorageError
from sealign_server.store import AuditTrail, SigningKeys, Verified
from sealign_server.store import verify_audit as verified_by

Lines = list[bytes]


def keys(directory: Path) -> SigningKeys:
    return SigningKeys(directory / "signing" / "keys.json")


def verify_audit(directory: Path, **options: Any) -> Verified:
    return verified_by(directory, keys(directory).known(), **options)


def written(directory: Path, count: int, **options: int) -> AuditTrail:
    """A trail with so many records, the last of which signs the others."""
    trail = AuditTrail(directory, keys(directory), **options)
    for number in range(1, count):
        trail.append("query", "CN=a", {"rows": number, "task": "topics"})
    trail.checkpoint()
    return trail


def _append(directory: str) -> None:
    trail = AuditTrail(Path(directory), keys(Path(directory)), 30_000)
    for number in range(300):
        trail.append("query", "CN=a", {"rows": number})


def test_processes_take_turns_and_files_are_closed_without_breaking_the_chain(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as processes:
        processes.map(_append, [str(tmp_path)] * 2)
    assert verify_audit(tmp_path).records == 600
    earlier = sorted(tmp_path.glob("0*.jsonl"))
    assert len(earlier) >= 3
    for file in [*earlier, keys(tmp_path).path, tmp_path / "current.jsonl"]:
        assert file.stat().st_mode & 0o777 == 0o600
    first = json.loads(earlier[1].open().readline())["n"]
    earlier[0].rename(tmp_path / "archived")
    with pytest.raises(StorageError, match=f"records 1 to {first - 1} are missing"):
        verify_audit(tmp_path)
    assert verify_audit(tmp_path, begins_at=first).records == 601 - first


def _changed(lines: Lines) -> None:
    lines[4] = lines[4].replace(b'"rows":5', b'"rows":4')


def _changed_with_its_hash(lines: Lines) -> None:
    body = lines[4].replace(b'"rows":5', b'"rows":4').rpartition(b',"hash"')[0]
    lines[4] = body + b',"hash":"' + sha256(body).hexdigest().encode() + b'"}\n'


def _removed(lines: Lines) -> None:
    del lines[4:6]


def _moved(lines: Lines) -> None:
    lines[4], lines[5] = lines[5], lines[4]


def _cut_in_the_middle(lines: Lines) -> None:
    lines[4] = lines[4][:40]


def _made_anew(lines: Lines) -> None:
    """All hashes fit again, and the checkpoint is signed by nobody who could."""
    rechained(lines, lambda record: record["facts"].update(rows=7) if record["kind"] == "query" else None)


def rechained(lines: Lines, change: Callable[[dict[str, Any]], None]) -> None:
    previous = "0" * 64
    for place, line in enumerate(lines):
        record = json.loads(line)
        del record["hash"]
        change(record)
        body = json.dumps(record | {"previous": previous}, separators=(",", ":")).encode()[:-1]
        previous = sha256(body).hexdigest()
        lines[place] = body + f',"hash":"{previous}"}}\n'.encode()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_changed, "line 5 of current.jsonl: record 5 was changed"),
        (_changed_with_its_hash, "record 6 does not follow the record 5"),
        (_removed, "records 5 to 6 are missing"),
        (_moved, "records 5 to 5 are missing"),
        (_cut_in_the_middle, "line 5 of current.jsonl is no record"),
        (_made_anew, "the signature of checkpoint 12 is wrong"),
    ],
)
def test_verification_finds_what_was_done(tmp_path: Path, harm: Callable[[Lines], None], says: str) -> None:
    written(tmp_path, 12)
    assert verify_audit(tmp_path).signed == 11
    file = tmp_path / "current.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    harm(lines)
    file.write_bytes(b"".join(lines))
    with pytest.raises(StorageError, match=re.escape(says)):
        verify_audit(tmp_path)


def test_a_chain_without_its_signatures_is_found(tmp_path: Path) -> None:
    written(tmp_path, 1100)
    file = tmp_path / "current.jsonl"
    lines = [line for line in file.read_bytes().splitlines(keepends=True) if b'"checkpoint"' not in line]

    def number(record: dict[str, Any]) -> None:
        record["n"] = number.next = number.next + 1  # type: ignore[attr-defined]

    number.next = 0  # type: ignore[attr-defined]
    rechained(lines, number)
    file.write_bytes(b"".join(lines))
    with pytest.raises(StorageError, match="no checkpoint after record 1000"):
        verify_audit(tmp_path)


def test_an_end_that_was_cut_off_is_found_by_what_was_written_down(tmp_path: Path) -> None:
    written(tmp_path, 12)
    verified = verify_audit(tmp_path)
    file = tmp_path / "current.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:8]))
    assert verify_audit(tmp_path).number == 8
    with pytest.raises(StorageError, match="records up to 12 were cut off"):
        verify_audit(tmp_path, expected=(verified.number, verified.digest))
    for _ in range(4):
        AuditTrail(tmp_path, keys(tmp_path)).append("query", "CN=a", {})
    with pytest.raises(StorageError, match="record 12 has another hash"):
        verify_audit(tmp_path, expected=(verified.number, verified.digest))


def test_a_record_that_was_being_written_is_dropped_by_the_next(tmp_path: Path) -> None:
    trail = written(tmp_path, 3)
    with (tmp_path / "current.jsonl").open("ab") as stream:
        stream.write(b'{"n":4,"at":"2026')
    assert verify_audit(tmp_path).torn == 17
    trail.append("query", "CN=a", {"rows": 1})
    assert verify_audit(tmp_path).torn == 0
    assert verify_audit(tmp_path).number == 4


def _fill(directory: str) -> int:
    """Append until the file may not grow; returns how many records were accepted."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    trail, accepted = AuditTrail(Path(directory), keys(Path(directory))), 0
    with suppress(StorageError):
        for number in range(1000):
            trail.append("query", "CN=a", {"rows": 1})
            accepted = number + 1
    with pytest.raises(StorageError, match="could not write the audit trail"):
        trail.append("query", "CN=a", {"rows": 1})
    return accepted


def test_a_full_disk_refuses_the_deed_and_leaves_the_chain(tmp_path: Path) -> None:
    with get_context("spawn").Pool(1) as processes:
        accepted = processes.apply(_fill, (str(tmp_path),))
    assert 10 < accepted < 1000
    verified = verify_audit(tmp_path)
    assert (verified.records, verified.torn) == (accepted, 0)


def test_nothing_to_verify_and_nothing_to_continue(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no audit trail"):
        verify_audit(tmp_path)
    (tmp_path / "current.jsonl").write_bytes(b"damage\n")
    with pytest.raises(StorageError, match="audit verify"):
        AuditTrail(tmp_path, keys(tmp_path)).append("query", "CN=a", {})
