from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealign.alignment import AffineMap, MappedChannel, RidgeStatistics, fit_ridge, weigh_shared
from sealign.errors import InvalidInputError
from sealign.files import load_arrays, save_arrays

Matrix = NDArray[np.float64]


def fit(x: Matrix, y: Matrix) -> AffineMap:
    statistics = RidgeStatistics(x.shape[1], y.shape[1])
    statistics.update(x, y)
    return fit_ridge(statistics, source_fingerprint="s", target_fingerprint="t", public_set="p")


def channel_of(learned: AffineMap) -> MappedChannel:
    assert learned.channel is not None
    return learned.channel


class Planted:
    """Gaussian targets y with a decaying spectrum, and sources x = yM + noise: a lossy second encoder."""

    def __init__(self, source: int = 8, target: int = 12) -> None:
        random = np.random.default_rng(0)
        self.mean = random.normal(size=target)
        self.mixing = random.normal(size=(target, target)) * 0.7 ** np.arange(target)[:, None]
        self.reading = random.normal(size=(target, source))

    def pairs(self, rows: int, seed: int) -> tuple[Matrix, Matrix]:
        random = np.random.default_rng(seed)
        y = self.mean + random.normal(size=(rows, len(self.mean))) @ self.mixing
        return y @ self.reading + 1.5 * random.normal(size=(rows, self.reading.shape[1])), y


def test_counterparts_of_unseen_rows_have_the_mean_and_covariance_of_mapped_ones() -> None:
    planted = Planted()
    learned = fit(*planted.pairs(20_000, 1))
    x, y = planted.pairs(20_000, 2)
    mapped, drawn = learned.apply(x), channel_of(learned).apply(y)
    assert drawn.dtype == np.float32
    deviation = mapped.std(axis=0)
    np.testing.assert_allclose(drawn.mean(axis=0), mapped.mean(axis=0), atol=0.03 * deviation.max())
    expected = np.cov(mapped.T)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.03 * np.trace(expected))
    # Not the same as the silo's own: the map has shrunk them.
    assert np.trace(expected) < 0.9 * np.trace(np.cov(y.T))
    # And row by row a counterpart resembles its text's mapped embedding, not just any.
    paired = np.mean(np.sum((drawn - drawn.mean(0)) * (mapped - mapped.mean(0)), axis=1))
    shuffled = np.mean(np.sum((drawn[::-1] - drawn.mean(0)) * (mapped - mapped.mean(0)), axis=1))
    assert paired > 0.5 * np.trace(expected)
    assert abs(shuffled) < 0.05 * np.trace(expected)


def test_a_lossless_map_leaves_embeddings_nearly_as_they_are() -> None:
    x = Planted().pairs(2000, 1)[1]
    y = x[:, ::-1]
    drawn = channel_of(fit(x, y)).apply(y)
    assert np.sum((drawn - y) ** 2) < 0.3 * np.sum((y - y.mean(0)) ** 2)


def test_a_map_that_has_learned_nothing_draws_next_to_the_mean() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2000, 8)), random.normal(size=(2000, 12))
    drawn = channel_of(fit(x, y)).apply(y)
    assert np.sum((drawn - y.mean(0)) ** 2) < 0.05 * np.sum((y - y.mean(0)) ** 2)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(10, 60),
    source=st.integers(1, 20),
    target=st.integers(1, 40),
    rank=st.integers(1, 8),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 9),
)
def test_fewer_rows_than_dimensions_and_deficient_ranks(
    rows: int, source: int, target: int, rank: int, scale: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(rows, rank))
    x = hidden @ random.normal(size=(rank, source))
    y = scale * (hidden @ random.normal(size=(rank, target)) + 1.0)
    learned = fit(x, y)
    channel = channel_of(learned)
    # The noise and the gain share what variance the mapped public texts have.
    centred = y - y.mean(axis=0)
    modelled = channel.gain.T @ (centred.T @ centred) @ channel.gain / rows + channel.noise.T @ channel.noise
    mapped = learned.apply(x)
    expected = np.atleast_2d(np.cov(mapped.T, bias=True))
    np.testing.assert_allclose(modelled, expected, atol=1e-3 * np.trace(expected) + 1e-12)
    assert np.isfinite(channel.apply(y)).all()


def test_draws_depend_on_the_seed_alone() -> None:
    x, y = Planted().pairs(200, 1)
    channel = channel_of(fit(x, y))
    np.testing.assert_array_equal(channel.apply(y), channel.apply(y))
    assert np.abs(channel.apply(y) - channel.apply(y, seed=1)).max() > 0.1


def test_a_map_keeps_its_channel(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    x, y = Planted().pairs(200, 1)
    learned = fit(x, y)
    learned.save(path)
    loaded = channel_of(AffineMap.load(path))
    np.testing.assert_array_equal(loaded.apply(y), channel_of(learned).apply(y))
    with pytest.raises(ValueError, match="read-only"):
        loaded.gain[0, 0] = 1


def test_maps_of_earlier_versions_have_none(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    x, y = Planted().pairs(200, 1)
    learned = fit(x, y)
    learned.save(path)
    arrays, metadata = load_arrays(path)
    save_arrays(path, {name: arrays[name] for name in ("weight", "intercept")}, metadata)
    loaded = AffineMap.load(path)
    assert loaded.channel is None
    np.testing.assert_array_equal(loaded.apply(x), learned.apply(x))


@pytest.mark.parametrize("change", [{"channel.gain": None}, {"channel.noise": np.full((12, 12), np.nan, np.float32)}])
def test_a_map_with_half_a_channel_is_damaged(tmp_path: Path, change: dict[str, Matrix | None]) -> None:
    path = tmp_path / "map.safetensors"
    fit(*Planted().pairs(200, 1)).save(path)
    arrays, metadata = load_arrays(path)
    changed = {name: array for name, array in {**arrays, **change}.items() if array is not None}
    save_arrays(path, changed, metadata)
    with pytest.raises(InvalidInputError, match="is damaged"):
        AffineMap.load(path)


def test_wrong_shapes() -> None:
    learned = fit(*Planted().pairs(200, 1))
    channel = channel_of(learned)
    for bad in (np.zeros(12), np.zeros((3, 11))):
        with pytest.raises(InvalidInputError, match="the channel takes"):
            channel.apply(bad)
    square = np.zeros((3, 3), np.float32)
    for mean, gain, noise, spread in [
        (square[0], square[:2], square, square),
        (square[0], square, square[0], square),
        (square[0], square, square, square[:2]),
        (square, square, square, square),
        (square[0, :0], square[:0, :0], square[:0, :0], square[:0, :0]),
    ]:
        with pytest.raises(InvalidInputError, match="has shape"):
            MappedChannel(mean, gain, noise, spread, noise)
    with pytest.raises(InvalidInputError, match="does not fit"):
        AffineMap(
            learned.weight,
            learned.intercept,
            "s",
            "t",
            "p",
            learned.quality,
            "now",
            MappedChannel(square[0], *[square] * 4),
        )


def test_a_blur_predicts_what_a_noisy_view_shows() -> None:
    """Against ridge regression on the view itself, with as many rows as one likes."""
    random = np.random.default_rng(4)
    mixing = random.normal(size=(6, 6)) * 0.6 ** np.arange(6)[:, None]
    covariance = mixing.T @ mixing
    y = random.normal(size=(60_000, 6)) @ mixing + 1.0
    noise = 0.5
    x = y + np.sqrt(noise * np.trace(covariance) / 6) * random.normal(size=y.shape)
    real, blur = channel_of(fit(x, y)), MappedChannel.blur(np.ones(6), covariance, noise)
    scale = np.trace(covariance)
    np.testing.assert_allclose(blur.noise_covariance, real.noise_covariance, atol=0.02 * scale)
    np.testing.assert_allclose(blur.expected(y[:50]), real.expected(y[:50]), atol=0.1 * np.sqrt(scale))
    clear = MappedChannel.blur(np.ones(6), covariance, 0.0)
    np.testing.assert_allclose(clear.apply(y[:50]), y[:50], atol=1e-4)


def test_noise_of_unseen_texts_is_that_of_texts_which_the_map_does_not_know() -> None:
    """Sixty texts of a task weigh thirty times as much as 400 public ones: the map nearly knows them by heart."""
    random = np.random.default_rng(3)
    reading = random.normal(size=(30, 40))

    def pairs(rows: int, shift: float) -> tuple[Matrix, Matrix]:
        y = random.normal(size=(rows, 30)) + shift
        return y @ reading + 6.0 * random.normal(size=(rows, 40)), y

    public, shared = RidgeStatistics(40, 30), RidgeStatistics(40, 30)
    public.update(*pairs(400, 0.0))
    shared.update(*pairs(60, 1.0))
    joined, _ = weigh_shared(public, shared, (30.0,))
    learned = fit_ridge(joined, source_fingerprint="s", target_fingerprint="t", public_set="p")
    channel = channel_of(learned)
    x, y = pairs(5000, 0.0)
    error = learned.apply(x) - channel.expected(y)
    real = np.trace(error.T @ error) / len(error)
    assert np.trace(channel.noise_covariance) < 0.75 * real
    assert np.trace(channel.unseen_texts().noise_covariance) == pytest.approx(real, rel=0.12)
    # Texts of a task do not widen what the public ones cover.
    own = y.T @ y / len(y)
    assert channel.reach(4 * own) == pytest.approx(channel_of(fit(*pairs(5000, 0.0))).reach(4 * own), rel=0.1)


def test_channels_of_earlier_versions_have_one_noise() -> None:
    channel = channel_of(fit(*Planted().pairs(200, 1)))
    kept = {name: getattr(channel, name) for name in MappedChannel.ARRAYS if name != "unseen"}
    np.testing.assert_array_equal(MappedChannel.of_arrays(kept).unseen, channel.noise)
    with pytest.raises(KeyError):
        MappedChannel.of_arrays({name: kept[name] for name in ("mean", "gain", "noise")})


def test_noise_grows_with_the_reach_of_a_task() -> None:
    x, y = Planted().pairs(2000, 1)
    channel = channel_of(fit(x, y))
    public = np.cov(y.T, bias=True)
    assert channel.reach(public) == 1.0
    assert 1.5 < channel.reach(4 * public) < 4.0
    noisier = channel.noisier(4.0)
    np.testing.assert_allclose(noisier.noise_covariance, 4.0 * channel.noise_covariance, rtol=1e-5)
    np.testing.assert_array_equal(noisier.gain, channel.gain)
