"""What a client may tell the silo about its own map: enough for a channel, and nothing about its embedding space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import (
    AffineMap,
    MapCovariances,
    MappedChannel,
    RidgeStatistics,
    ScaledRows,
    fit_cross_covariance,
    fit_ridge,
)
from sealign.errors import InvalidInputError

from .test_channel import Matrix, Planted


def learned_under_encryption(x: Matrix, y: Matrix) -> AffineMap:
    centred = y - y.mean(axis=0)
    source = ScaledRows.of(x)
    return fit_cross_covariance(
        source,
        source.rows @ centred,
        float(np.sum(centred**2)),
        0.0,
        source_fingerprint="a",
        target_fingerprint="b",
        public_set="c",
    )


def told(learned: AffineMap) -> MapCovariances:
    assert learned.covariances is not None
    return learned.covariances


def test_they_are_the_covariances_of_mapped_rows() -> None:
    x, y = Planted().pairs(3000, 1)
    learned = learned_under_encryption(x, y)
    mapped = learned.apply(x)  # centred
    scale = np.trace(mapped.T @ mapped) / len(x)
    np.testing.assert_allclose(told(learned).mapped, mapped.T @ mapped / len(x), atol=1e-5 * scale)
    np.testing.assert_allclose(told(learned).cross, (y - y.mean(axis=0)).T @ mapped / len(x), atol=1e-5 * scale)


def test_the_channel_is_that_of_the_rows() -> None:
    x, y = Planted().pairs(20_000, 1)
    statistics = RidgeStatistics(x.shape[1], y.shape[1])
    statistics.update(x, y)
    clear = fit_ridge(statistics, source_fingerprint="a", target_fingerprint="b", public_set="c")
    assert clear.channel is not None
    channel = MappedChannel.of_covariances(y, told(learned_under_encryption(x, y)))
    scale = np.trace(told(learned_under_encryption(x, y)).mapped)
    np.testing.assert_allclose(channel.mean, clear.channel.mean, atol=1e-4)
    for name in ("noise_covariance",):
        np.testing.assert_allclose(getattr(channel, name), getattr(clear.channel, name), atol=0.01 * scale)
    fresh = Planted().pairs(2000, 2)[1]
    np.testing.assert_allclose(channel.expected(fresh), clear.channel.expected(fresh), atol=0.1 * np.sqrt(scale))


def test_a_rotated_embedding_space_tells_the_same() -> None:
    """The claim of SECURITY.md: the client's basis cannot be told from what it tells."""
    x, y = Planted().pairs(2000, 1)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(x.shape[1], x.shape[1])))
    one, other = (told(learned_under_encryption(rows, y)) for rows in (x, x @ rotation))
    np.testing.assert_allclose(one.cross, other.cross, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.mapped, other.mapped, rtol=1e-4, atol=1e-5)


def test_a_map_keeps_them(tmp_path: Path) -> None:
    learned = learned_under_encryption(*Planted().pairs(500, 1))
    learned.save(tmp_path / "map.safetensors")
    kept = told(AffineMap.load(tmp_path / "map.safetensors"))
    np.testing.assert_array_equal(kept.cross, told(learned).cross)
    np.testing.assert_array_equal(kept.mapped, told(learned).mapped)


def test_refusals() -> None:
    _, y = Planted().pairs(500, 1)
    good = np.eye(12, dtype=np.float32)
    for cross, mapped in ((good[:3], good), (good[:3, :3], good), (good[0], good), (good[:0, :0], good[:0, :0])):
        with pytest.raises(InvalidInputError, match="square and alike"):
            MapCovariances(cross, mapped)
    with pytest.raises(InvalidInputError, match="not finite"):
        MapCovariances(good * np.nan, good)
    with pytest.raises(InvalidInputError, match="do not fit embeddings"):
        MappedChannel.of_covariances(y[:, :5], MapCovariances(good, good))
    for cross, mapped in ((1e6 * good, good), (good, 0 * good)):
        with pytest.raises(InvalidInputError, match="of no map"):
            MappedChannel.of_covariances(y, MapCovariances(cross, mapped))
    with pytest.raises(InvalidInputError, match="of no map"):
        MappedChannel.of_covariances(np.ones((20, 12)), MapCovariances(good, good))
