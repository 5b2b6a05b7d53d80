from __future__ import annotations

import dataclasses
import errno
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import AffineMap, MapQuality
from sealign.errors import InvalidInputError, StorageError
from sealign.files import load_arrays, save_arrays

QUALITY = MapQuality(0.75, 0.9, 0.6, 1000, 0.01)


def affine_map(seed: int = 0, source: int = 64, target: int = 32) -> AffineMap:
    random = np.random.default_rng(seed)
    return AffineMap(
        random.normal(size=(source, target)),
        random.normal(size=target),
        "source",
        "target",
        "public",
        QUALITY,
        "2026-01-01T00:00:00+00:00",
    )


def assert_same(actual: AffineMap, expected: AffineMap) -> None:
    for field in dataclasses.fields(AffineMap):
        np.testing.assert_array_equal(getattr(actual, field.name), getattr(expected, field.name))


def test_round_trip(tmp_path: Path) -> None:
    original = affine_map()
    original.save(tmp_path / "maps" / "a.safetensors")
    loaded = AffineMap.load(tmp_path / "maps" / "a.safetensors")
    assert_same(loaded, original)
    x = np.ones((3, 64), np.float32)
    np.testing.assert_array_equal(loaded.apply(x), original.apply(x))


def test_apply() -> None:
    result = affine_map()
    x = np.random.default_rng(1).normal(size=(5, 64))
    np.testing.assert_allclose(result.apply(x), [row @ result.weight + result.intercept for row in x])
    for bad in (x[0], x[:, 1:]):
        with pytest.raises(InvalidInputError, match="the map takes"):
            result.apply(bad)


def test_the_map_cannot_be_changed_by_accident() -> None:
    weight = np.eye(2)
    result = AffineMap(weight, np.zeros(2), "s", "t", "p", QUALITY, "now")
    weight[0, 0] = 5
    assert result.weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        result.weight[0, 0] = 5


@pytest.mark.parametrize(
    ("weight", "intercept"),
    [
        (np.zeros((2, 3)), np.zeros(2)),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((0, 3)), np.zeros(3)),
        (np.full((2, 3), np.nan), np.zeros(3)),
        (np.zeros((2, 3)), np.full(3, np.inf)),
    ],
)
def test_bad_maps(weight: object, intercept: object) -> None:
    with pytest.raises(InvalidInputError):
        AffineMap(weight, intercept, "s", "t", "p", QUALITY, "now")  # type: ignore[arg-type]


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    with pytest.raises(StorageError, match="could not read"):
        AffineMap.load(path)
    path.write_bytes(b"not a map")
    with pytest.raises(StorageError, match="could not read"):
        AffineMap.load(path)
    save_arrays(path, {"weight": np.eye(2), "bias": np.zeros(2)}, {})
    with pytest.raises(InvalidInputError, match="not an affine map"):
        AffineMap.load(path)


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    affine_map().save(path)
    content = path.read_bytes()
    for length in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises((StorageError, InvalidInputError)):
            AffineMap.load(path)


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        ({"weight": np.full((64, 32), np.nan)}, {}),
        ({"weight": np.zeros((64, 32), np.float32)}, {}),
        ({"intercept": np.zeros(31)}, {}),
        ({}, {"quality": "{"}),
        ({}, {"quality": "[]"}),
        ({}, {"quality": '{"rows": 1}'}),
        (
            {},
            {"quality": '{"explained_variance": NaN, "mean_cosine": 0, "linear_cka": 0, "rows": 1, "penalty": 1}'},
        ),
        (
            {},
            {"quality": '{"explained_variance": 0, "mean_cosine": 0, "linear_cka": 0, "rows": "1", "penalty": 1}'},
        ),
    ],
)
def test_damaged_file(tmp_path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    path = tmp_path / "map.safetensors"
    affine_map().save(path)
    good_arrays, good_metadata = load_arrays(path)
    save_arrays(path, good_arrays | arrays, good_metadata | metadata)
    with pytest.raises(InvalidInputError, match="is damaged"):
        AffineMap.load(path)


@pytest.mark.parametrize("key", ["quality", "source_fingerprint", "public_set", "created"])
def test_file_without_a_field(tmp_path: Path, key: str) -> None:
    path = tmp_path / "map.safetensors"
    affine_map().save(path)
    arrays, metadata = load_arrays(path)
    del metadata[key]
    save_arrays(path, arrays, metadata)
    with pytest.raises(InvalidInputError, match="is damaged"):
        AffineMap.load(path)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_leaves_the_old_map(full_disk: Path) -> None:
    path = full_disk / "map.safetensors"
    old = affine_map(0, 128, 32)
    old.save(path)
    with pytest.raises(StorageError, match="No space left on device"):
        affine_map(1, 128, 32).save(path)
    assert_same(AffineMap.load(path), old)
    assert os.listdir(full_disk) == ["map.safetensors"]  # noqa: PTH208


def test_a_file_size_limit_leaves_the_old_map(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    old = affine_map(0)
    old.save(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError) as caught:
            affine_map(1).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert_same(AffineMap.load(path), old)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.safetensors"]
