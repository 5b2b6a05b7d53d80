"""What a client stores of an encrypted alignment under way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.ckks import SecretKey, VerifiedRows, candidates, product_shape
from sealign.errors import InvalidInputError, StorageError
from sealign_client.local.unfinished import BegunAlignment, UnfinishedAlignment

EMBEDDINGS = np.arange(12, dtype=np.float32).reshape(4, 3)
ROWS = np.eye(3, 40) / 2
SESSION = bytes(range(16))
PLAN = candidates(product_shape(np.ones((40, 2)) / 10, np.zeros(2), rows=27, precision=1e-3), streamed=True)[0]


def begun(directory: Path, passphrase: str | None = None) -> BegunAlignment:
    unfinished = UnfinishedAlignment(directory, passphrase)
    assert unfinished.begun is None
    verified = VerifiedRows.of(ROWS, PLAN, SecretKey.generate(PLAN.parameters), bias=np.zeros(2))
    unfinished.keep(BegunAlignment.of(SESSION, EMBEDDINGS, verified))
    assert unfinished.begun is not None
    return unfinished.begun


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_another_process_resumes_with_session_key_checks_and_embeddings(tmp_path: Path, passphrase: str | None) -> None:
    first = begun(tmp_path / "a", passphrase)
    unfinished = UnfinishedAlignment(tmp_path / "a", passphrase)
    second = unfinished.begun
    assert second is not None
    assert second.session == SESSION
    assert np.array_equal(second.rows, EMBEDDINGS)
    # The silo's sums are under this public key.
    assert second.key.public_key.id == first.key.public_key.id
    for ours, theirs in zip(first.checks, second.checks, strict=True):
        assert np.array_equal(ours, theirs)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o600}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    unfinished.remove()
    assert not (tmp_path / "a").exists()
    assert UnfinishedAlignment(tmp_path / "a").begun is None


def test_the_same_rows_are_encrypted_again_with_the_same_checks_among_them(tmp_path: Path) -> None:
    key = SecretKey.generate(PLAN.parameters)
    first = VerifiedRows.of(ROWS, PLAN, key, bias=np.zeros(2))
    other = VerifiedRows.of(ROWS, PLAN, key, bias=np.zeros(2))
    assert not np.array_equal(first.rows, other.rows)
    again = other.restored(BegunAlignment.of(SESSION, EMBEDDINGS, first).checks)
    assert np.allclose(again.rows, first.rows, rtol=0, atol=1e-15)
    weight = np.linspace(-0.1, 0.1, 80).reshape(40, 2)
    assert np.allclose(again.checked(again.rows @ weight), ROWS @ weight)


def test_the_passphrase_protects_the_key(tmp_path: Path) -> None:
    begun(tmp_path, "correct horse")
    with pytest.raises(InvalidInputError, match="under a passphrase"):
        UnfinishedAlignment(tmp_path)
    with pytest.raises(InvalidInputError, match="does not open"):
        UnfinishedAlignment(tmp_path, "wrong horse")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    begun(tmp_path)
    (key,) = tmp_path.glob("*.key")
    key.unlink()
    with pytest.raises(StorageError, match="to start again"):
        UnfinishedAlignment(tmp_path)
    (tmp_path / "session.safetensors").write_bytes(b"half a file")
    with pytest.raises(StorageError, match="to start again"):
        UnfinishedAlignment(tmp_path)
