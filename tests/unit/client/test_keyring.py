"""The client's keys: ephemeral unless a directory is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tenseal import sealapi

from sealign.ckks import PARAMETER_SETS
from sealign.ckks.backend import backend
from sealign.ckks.serialization import load_seeded
from sealign.errors import InvalidInputError, StorageError
from sealign_client.keyring import KeyRing

SMALL, LARGE = PARAMETER_SETS["ckks-2048-40"], PARAMETER_SETS["ckks-4096-44"]


def test_one_key_for_each_parameter_set() -> None:
    ring = KeyRing()
    assert ring.key(SMALL) is ring.key(SMALL)
    assert ring.key(LARGE).parameters == LARGE
    assert ring.key(LARGE) is not ring.key(SMALL)


def test_ephemeral_keys_differ_and_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert KeyRing().key(SMALL).public_key.id != KeyRing().key(SMALL).public_key.id
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_stored_keys_come_back(tmp_path: Path, passphrase: str | None) -> None:
    first = KeyRing(tmp_path / "keys", passphrase).key(SMALL)
    second = KeyRing(tmp_path / "keys", passphrase).key(SMALL)
    (file,) = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    # The same secret: what one encrypts, the other decrypts to small noise around it.

    message = np.zeros(SMALL.poly_degree, np.int64)
    message[5] = 1 << 30
    sent = first.encrypt(backend(SMALL).encode(message))
    ciphertext = load_seeded(sealapi.Ciphertext(), backend(SMALL).context, SMALL, sent, "ciphertext")
    got = backend(SMALL).decode(second.decrypt(ciphertext))
    assert np.abs(got - message).max() < 100


def test_a_wrong_passphrase_and_a_damaged_file(tmp_path: Path) -> None:
    KeyRing(tmp_path, "correct horse").key(SMALL)
    with pytest.raises(InvalidInputError, match="does not open"):
        KeyRing(tmp_path, "wrong horse").key(SMALL)
    with pytest.raises(InvalidInputError, match="under a passphrase"):
        KeyRing(tmp_path).key(SMALL)
    (tmp_path / f"{SMALL.name}.key").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        KeyRing(tmp_path, "correct horse").key(SMALL)
