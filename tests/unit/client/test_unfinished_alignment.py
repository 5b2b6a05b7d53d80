"""What a client keeps of an encrypted alignment under way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.ckks import PARAMETER_SETS
from sealign.errors import InvalidInputError, StorageError
from sealign_client.unfinished_alignment import UnfinishedAlignment

PARAMETERS = PARAMETER_SETS["ckks-2048-40"]
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
SESSION = bytes(range(16))


def begun(directory: Path, passphrase: str | None = None) -> UnfinishedAlignment:
    unfinished = UnfinishedAlignment(directory, passphrase)
    assert unfinished.session == b""
    unfinished.keep(SESSION, unfinished.key(PARAMETERS).public_key, ROWS)
    return unfinished


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_another_process_goes_on_with_session_key_and_embeddings(tmp_path: Path, passphrase: str | None) -> None:
    first = begun(tmp_path / "a", passphrase)
    second = UnfinishedAlignment(tmp_path / "a", passphrase)
    assert second.session == SESSION
    assert second.embeddings is not None
    assert np.array_equal(second.embeddings, ROWS)
    # The silo's sums are under this public key.
    assert second.key(PARAMETERS).public_key.id == first.key(PARAMETERS).public_key.id
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o600}
    second.remove()
    assert not (tmp_path / "a").exists()
    assert UnfinishedAlignment(tmp_path / "a").embeddings is None


def test_the_passphrase_protects_the_key(tmp_path: Path) -> None:
    begun(tmp_path, "correct horse")
    with pytest.raises(InvalidInputError, match="under a passphrase"):
        UnfinishedAlignment(tmp_path).key(PARAMETERS)
    with pytest.raises(InvalidInputError, match="does not open"):
        UnfinishedAlignment(tmp_path, "wrong horse").key(PARAMETERS)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    begun(tmp_path)
    (key,) = tmp_path.glob("*.key")
    key.unlink()
    with pytest.raises(StorageError, match="to start again"):
        UnfinishedAlignment(tmp_path)
    (tmp_path / "session.safetensors").write_bytes(b"half a file")
    with pytest.raises(StorageError, match="to start again"):
        UnfinishedAlignment(tmp_path)
