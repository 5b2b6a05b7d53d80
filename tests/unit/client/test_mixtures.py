"""Mixtures as they lie beside the maps, and the public positions that they are fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.errors import InvalidInputError, StorageError
from sealign.files import load_arrays, save_arrays
from sealign.generation.states import client_rows, silo_rows
from sealign_client.local.maps import Lane
from sealign_client.local.mixtures import StoredMixture, load_mixture, save_mixture
from sealign_client.mixing import fitted_mixture, require_current, spread_positions
from sealign_client.results import Mixture
from tests.support import small_lms
from tests.support.generation import loaded

LANE = Lane("silo", "generation/prose", "a" * 64, "b" * 64)
STORED = StoredMixture("map", "tokenizer", Mixture(0.625, 24, 40.5, 61.0, 47.25), np.array([3, 0, 9], dtype=np.uint32))


def test_a_mixture_comes_back_for_its_lane_alone(tmp_path: Path) -> None:
    assert load_mixture(tmp_path / "maps", LANE) is None
    save_mixture(tmp_path / "maps", LANE, STORED)
    found = load_mixture(tmp_path / "maps", LANE)
    assert found is not None
    assert (found.map, found.tokenizer, found.mixture) == ("map", "tokenizer", STORED.mixture)
    np.testing.assert_array_equal(found.counts, STORED.counts)
    assert load_mixture(tmp_path / "maps", Lane("silo", "generation/other", "a" * 64, "b" * 64)) is None


@pytest.mark.parametrize("change", [{"format": "another"}, {"weight": "much"}, {"positions": "1.5"}])
def test_damage_is_named(tmp_path: Path, change: dict[str, str]) -> None:
    save_mixture(tmp_path, LANE, STORED)
    (path,) = tmp_path.glob("*.mixture")
    arrays, metadata = load_arrays(path)
    save_arrays(path, arrays, {**metadata, **change})
    with pytest.raises(StorageError, match="holds a mixture, is damaged"):
        load_mixture(tmp_path, LANE)


def test_a_mixture_of_another_map_is_refused() -> None:
    assert require_current(STORED, "map", "tokenizer", "prose") is STORED
    for stored, map_id, reason in ((None, "map", "none was fitted"), (STORED, "new", "belongs to an earlier map")):
        with pytest.raises(InvalidInputError, match=reason):
            require_current(stored, map_id, "tokenizer", "prose")


def test_positions_are_spread_over_texts_and_have_a_token_that_follows() -> None:
    one, two = (loaded(name) for name in ("one", "two"))
    texts = list(dict.fromkeys(small_lms.public_texts(6)))
    found = spread_positions(one, two.tokenizer, texts, 24)
    assert found.rows.shape == found.states.shape == (24, one.card.dimension)
    rows = np.concatenate(list(client_rows(one, two.tokenizer, texts)))
    following = np.concatenate([read.following for read in silo_rows(two, texts)])
    known = {(row.tobytes(), int(follows)) for row, follows in zip(rows, following, strict=True)}
    assert {(row.tobytes(), int(follows)) for row, follows in zip(found.rows, found.following, strict=True)} <= known
    assert (found.following >= 0).all()
    with pytest.raises(InvalidInputError, match="of the 9000 positions asked for"):
        spread_positions(one, two.tokenizer, texts[:2], 9000)


def test_a_fitted_mixture_says_what_each_side_does_alone() -> None:
    silo, own = np.log([0.5, 0.1, 0.2, 0.4]), np.log([0.1, 0.5, 0.3, 0.2])
    found = fitted_mixture(silo.tolist(), own.tolist())
    assert found.positions == 4
    assert found.silo_perplexity == pytest.approx(np.exp(-silo.mean()))
    assert found.own_perplexity == pytest.approx(np.exp(-own.mean()))
    assert found.perplexity < min(found.silo_perplexity, found.own_perplexity)
