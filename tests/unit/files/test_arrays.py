"""Array files: every damage is noticed, other programs' files are read."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from sealign.errors import StorageError
from sealign.files import Array, ArrayWriter, load_arrays, map_arrays, save_arrays


def assert_same(actual: dict[str, Array], expected: dict[str, Array]) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_array_equal(actual[name], array)


@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from(["f2", "f4", "f8", "i1", "i8", "u4", "?"]),
    metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], dtype: str, metadata: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "arrays.safetensors"
    arrays = {"a": np.ones(shape, dtype), "transposed": np.arange(6.0).reshape(2, 3).T}
    save_arrays(path, arrays, metadata)
    loaded, read = load_arrays(path)
    assert_same(loaded, arrays)
    assert read == metadata


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    arrays: dict[str, Array] = {"weight": np.eye(2), "bias": np.ones(2, np.float32)}
    metadata = {"labels": '["a", "b"]'}
    save_arrays(path, arrays, metadata)
    content = path.read_bytes()
    noticed = 0
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            loaded, read = load_arrays(path)
        except StorageError:
            noticed += 1
            continue
        # What is left are letters of the digest's own name: it is then an unknown key beside intact content.
        assert_same(loaded, arrays)
        assert metadata.items() <= read.items()
    assert noticed > 0.95 * 8 * len(content)


def test_files_of_other_programs_have_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    safetensors.numpy.save_file({"weight": np.eye(2)}, path, metadata={"labels": "ab"})
    loaded, metadata = load_arrays(path)
    assert_same(loaded, {"weight": np.eye(2)})
    assert metadata == {"labels": "ab"}


def test_numbers_that_numpy_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2, dtype=torch.bfloat16)}, path)
    with pytest.raises(StorageError, match="Store its arrays as float32"):
        load_arrays(path)


def test_private_files_are_for_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    path.touch(0o644)
    save_arrays(path, {"weight": np.eye(2)}, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_arrays_written_one_by_one_are_read_and_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    arrays: dict[str, Array] = {
        "x": np.arange(12, dtype=np.uint32).reshape(3, 4),
        "y": np.array([1, 2, 255], dtype=np.uint8),
    }
    shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    with ArrayWriter(path, shapes, {"of": "test"}) as writer:
        for name, array in arrays.items():
            writer.append(name, array)
    for read in (load_arrays, map_arrays):
        found, metadata = read(path)
        assert metadata == {"of": "test"}
        assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert not map_arrays(path)[0]["x"].flags.writeable


def test_an_unfinished_file_of_arrays_does_not_appear(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    shapes = {"x": ((2,), np.dtype(np.uint8)), "y": ((2,), np.dtype(np.uint8))}
    with ArrayWriter(path, shapes, {}) as writer:
        writer.append("x", np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match="was announced"), ArrayWriter(path, shapes, {}) as writer:
        writer.append("x", np.zeros(3, np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x09\0\0\0\0\0\0\0[1, 2, 3]x"])
def test_other_files_cannot_be_mapped(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="missing, cut or not a safetensors file"):
        map_arrays(path)
    with pytest.raises(StorageError, match="missing, cut"):
        map_arrays(tmp_path / "none")
