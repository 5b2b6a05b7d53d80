from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.errors import InvalidInputError, StorageError
from sealign.files import save_arrays
from sealign.generation.whitening import Whitening


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    """Rows whose directions differ a hundredfold in spread, about a mean far from zero."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((count, 6)) * np.geomspace(0.3, 30, 6)
    turned, _ = np.linalg.qr(np.random.default_rng(9).standard_normal((6, 6)))
    made: np.ndarray = (mixed @ turned + 40).astype(np.float32)
    return made


def test_whitened_rows_vary_alike_in_all_directions() -> None:
    whitening = Whitening.fit(rows_of(9000))
    unseen = whitening.apply(rows_of(5000, seed=1))
    assert unseen.dtype == np.float32
    np.testing.assert_allclose(unseen.mean(axis=0), 0, atol=0.1)
    values = np.linalg.eigvalsh(np.cov(unseen.T))
    assert values.max() < 1.15
    assert np.median(values) > 0.5
    # Directions fainter than the shrinkage are not blown up to the others' size.
    assert 0.01 < values.min() < 0.1


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    whitening, rows = Whitening.fit(rows_of(100)), rows_of(3, seed=2)
    whitening.save(tmp_path / "w")
    np.testing.assert_array_equal(Whitening.load(tmp_path / "w").apply(rows), whitening.apply(rows))
    with pytest.raises(StorageError):
        Whitening.load(tmp_path / "none")
    save_arrays(tmp_path / "other", {"mean": np.zeros(2)}, {"format": "another"})
    with pytest.raises(InvalidInputError, match="holds no whitening"):
        Whitening.load(tmp_path / "other")


@pytest.mark.parametrize("rows", [rows_of(1), np.ones((9, 3), np.float32), np.full((4, 2), np.nan, np.float32)])
def test_refusals(rows: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="cannot be whitened"):
        Whitening.fit(rows)
