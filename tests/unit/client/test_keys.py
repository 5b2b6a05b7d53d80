"""The client's keys: ephemeral unless a directory is named, and replaced before they have told too much."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tenseal import sealapi

from sealign.ckks import PARAMETER_SETS, ParameterSet, SecretKey, replies_per_key
from sealign.ckks.backend import backend
from sealign.ckks.serialization import load_seeded
from sealign.errors import InvalidInputError, StorageError
from sealign_client.local.keys import KeyRing, KeyStore
from tests.support.processes import command

SMALL, LARGE = PARAMETER_SETS["ckks-2048-40"], PARAMETER_SETS["ckks-4096-44"]


def key(ring: KeyRing, parameters: ParameterSet = SMALL, labels: int = 4) -> SecretKey:
    return ring.key_for(parameters, rows=1, labels=labels)


def ring(directory: Path, passphrase: str | None = None) -> KeyRing:
    return KeyRing(KeyStore(directory, passphrase))


def test_one_key_for_each_parameter_set() -> None:
    keys = KeyRing()
    assert key(keys) is key(keys)
    assert key(keys, LARGE).parameters == LARGE
    assert key(keys, LARGE) is not key(keys)


def test_ephemeral_keys_differ_and_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert key(KeyRing()).public_key.id != key(KeyRing()).public_key.id
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == []


def test_a_key_is_replaced_when_it_has_told_what_it_may() -> None:
    keys, used = KeyRing(), list[bytes]()
    allowed = replies_per_key(SMALL, 4)
    for _ in range(2 * allowed):
        used.append(key(keys).public_key.id)
    assert len(set(used)) == 2
    assert used == sorted(used, key=used.index)
    assert used.count(used[0]) == allowed


def test_a_key_that_failed_is_never_used_again(tmp_path: Path) -> None:
    for keys in (KeyRing(), ring(tmp_path)):
        failed = key(keys)
        keys.retire(failed)
        assert key(keys) is not failed
    # Nor by another process.
    keys = ring(tmp_path)
    failed = key(keys)
    keys.retire(failed)
    assert key(ring(tmp_path)).leakage.replies == 1


def test_an_exchange_keeps_its_key_when_one_fails_until_its_replies_are_used_up() -> None:
    """Whether its own or another's decryption failed: a silo sees the change of keys, and counts replies itself."""
    keys, allowed = KeyRing(), replies_per_key(SMALL, 4)
    held, seen = None, list[SecretKey]()
    for reply in range(allowed + 1):
        held = keys.key_for(SMALL, rows=1, labels=4, held=held)
        seen.append(held)
        if reply == 1:
            keys.retire(held)
            assert key(keys) is not held  # nobody else gets it
    assert len({one.public_key.id for one in seen[:allowed]}) == 1
    assert seen[-1] is key(keys)


def test_a_key_that_is_not_the_current_one_is_not_stored_when_it_is_retired(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    old = key(keys)
    keys.retire(old)
    current = key(keys)
    keys.retire(old)
    assert key(keys) is current
    assert json.loads((tmp_path / f"{SMALL.name}.key").read_text())["failed"] is False


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_stored_keys_come_back(tmp_path: Path, passphrase: str | None) -> None:
    first = key(ring(tmp_path / "keys", passphrase))
    second = key(ring(tmp_path / "keys", passphrase))
    (file,) = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    # The same secret: what one encrypts, the other decrypts to small noise around it.
    message = np.zeros(SMALL.poly_degree, np.int64)
    message[5] = 1 << 30
    sent = first.encrypt(backend(SMALL).encode(message))
    ciphertext = load_seeded(sealapi.Ciphertext(), backend(SMALL).context, SMALL, sent, "ciphertext")
    got = backend(SMALL).decode(second.decrypt(ciphertext))
    assert np.abs(got - message).max() < 100


def test_stored_keys_keep_their_count(tmp_path: Path) -> None:
    """Ahead while a process runs, so that a crash forgets nothing; exactly once it has ended."""
    keys = ring(tmp_path)
    for _ in range(3):
        key(keys, labels=2)

    def stored() -> int:
        return int(json.loads((tmp_path / f"{SMALL.name}.key").read_text())["replies"])

    assert stored() > 3
    keys.close()
    assert stored() == 3
    total = 3
    for _ in range(2):  # processes that crash
        key(ring(tmp_path), labels=2)
        assert stored() > total
        total = stored()


def test_a_wrong_passphrase_and_a_damaged_file(tmp_path: Path) -> None:
    key(ring(tmp_path, "correct horse"))
    with pytest.raises(InvalidInputError, match="does not open"):
        key(ring(tmp_path, "wrong horse"))
    with pytest.raises(InvalidInputError, match="under a passphrase"):
        key(ring(tmp_path))
    (tmp_path / f"{SMALL.name}.key").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        key(ring(tmp_path, "correct horse"))


def test_rotation_keeps_a_passphrase_and_refuses_a_wrong_one(tmp_path: Path) -> None:
    key(ring(tmp_path, "correct horse"))
    (file,) = tmp_path.glob("*.key")
    before = file.read_bytes()
    rotate = ("keys", "rotate", "--key-directory", tmp_path)
    for wrong, said in ((None, "under a passphrase"), ("wrong horse", "does not open")):
        given = {} if wrong is None else {"SEALIGN_CLIENT_KEY_PASSPHRASE": wrong}
        ran = command("sealign", *rotate, **given)
        assert (ran.returncode, said in ran.stderr) == (2, True), ran.stderr
    assert file.read_bytes() == before
    right = {"SEALIGN_CLIENT_KEY_PASSPHRASE": "correct horse"}
    assert command("sealign", *rotate, **right).returncode == 0
    assert json.loads(file.read_bytes())["key"] != json.loads(before)["key"]
    assert key(ring(tmp_path, "correct horse")).leakage.replies == 1
