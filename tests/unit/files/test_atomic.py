"""Atomic files: the old content or the new, whatever happens in between."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sealign.errors import StorageError
from sealign.files import load_arrays, save_arrays, write_atomically


def test_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"first", mode=0o600)
    write_atomically(path, b"second", mode=0o600)
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    owner: object = os if step == "fsync" else Path
    monkeypatch.setattr(owner, step, full)
    with pytest.raises(StorageError, match=r"could not write .*No space left on device\. The previous file"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_cleans_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not write"):
        write_atomically(tmp_path / "file" / "below", b"new")


def test_arrays_and_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.ones(2, np.float32)}
    save_arrays(path, arrays, {"format": "test"})
    loaded, metadata = load_arrays(path)
    assert metadata["format"] == "test"
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x04K\x01.", bytes(1000)])
def test_files_that_hold_no_arrays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "arrays.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="could not read"):
        load_arrays(path)
    with pytest.raises(StorageError):
        load_arrays(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("position", [-1, -20])
def test_flipped_bits_are_noticed(tmp_path: Path, position: int) -> None:
    path = tmp_path / "arrays.safetensors"
    save_arrays(path, {"a": np.arange(6.0)}, {})
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError):
        load_arrays(path)
