"""The silo's signing key: made once, kept private, followed by others that it signs; the audit trail stands on it."""

from __future__ import annotations

import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from sealign.errors import StorageError
from sealign.protocol.signing import is_signed, keys_after
from sealign_server.store import AuditTrail, SigningKeys, verify_audit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "signing" / "keys.json"


def _public(path: str) -> bytes:
    return SigningKeys(Path(path)).public


def test_processes_that_start_together_make_one_key_for_their_owner_alone(path: Path) -> None:
    with get_context("spawn").Pool(4) as processes:
        made = processes.map(_public, [str(path)] * 8, chunksize=1)
    assert len(set(made)) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    public, signature = SigningKeys(path).sign(b"content")
    assert public == made[0]
    assert is_signed(public, signature, b"content")


def test_a_rotated_key_is_used_at_once_by_other_processes_and_signed_by_the_one_before(path: Path) -> None:
    serving, operator = SigningKeys(path), SigningKeys(path)
    first = serving.public
    second = operator.rotate()
    third = operator.rotate()
    assert len({first, second, third}) == 3
    assert serving.public == third
    assert serving.sign(b"x")[0] == third
    assert keys_after(first, serving.changes) == {first, second, third}
    assert serving.known() == {first, second, third}
    assert serving.known(second) == {first, second, third}
    assert serving.known(bytes(32)) == {bytes(32)}


def test_more_changes_than_clients_accept_are_forgotten(path: Path) -> None:
    keys = SigningKeys(path)
    first = keys.public
    for _ in range(65):
        keys.rotate()
    assert len(keys.changes) == 64
    assert first not in keys.known()


@pytest.mark.parametrize(
    "content", [b"{", b"{}", json.dumps({"key": "00"}).encode(), json.dumps({"key": "x"}).encode()]
)
def test_a_damaged_file_is_named_and_never_replaced(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        SigningKeys(path).sign(b"x")
    assert path.read_bytes() == content


def test_checkpoints_verify_across_rotations_and_against_a_key_that_was_written_down(
    tmp_path: Path, path: Path
) -> None:
    keys = SigningKeys(path)
    trail = AuditTrail(tmp_path / "audit", keys)
    first = keys.public
    for _ in range(3):
        trail.append("query", "CN=a", {"rows": 1})
        trail.checkpoint()
        keys.rotate()
    assert verify_audit(trail.directory, keys.known()).signed == 5
    assert verify_audit(trail.directory, keys.known(first)).signed == 5
    with pytest.raises(StorageError, match="none of this silo's"):
        verify_audit(trail.directory, keys.known(bytes(32)))
    # Whoever can write the directory can begin a chain anew with a key of its own: not by the key written down.
    path.unlink()
    forged = AuditTrail(tmp_path / "other", keys)
    forged.append("query", "CN=a", {"rows": 1})
    forged.checkpoint()
    assert verify_audit(forged.directory, keys.known()).signed == 1
    with pytest.raises(StorageError, match="none of this silo's"):
        verify_audit(forged.directory, keys.known(first))
