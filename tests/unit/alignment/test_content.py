"""Simulated randomness of rows follows their content."""

from __future__ import annotations

import numpy as np
import pytest

from sealign.alignment import MappedChannel
from sealign.alignment.content import row_keys, row_normals

ROWS = np.random.default_rng(0).normal(size=(2000, 6))


def test_a_row_less_or_another_order_changes_no_other_row() -> None:
    order = np.random.default_rng(1).permutation(2000)[1:]
    assert (row_keys(ROWS)[order] == row_keys(ROWS[order])).all()
    assert (row_normals(ROWS)[order] == row_normals(ROWS[order])).all()


def test_seeds_give_other_numbers() -> None:
    assert (row_keys(ROWS, 0) != row_keys(ROWS, 1)).all()
    assert not (row_normals(ROWS, 0) == row_normals(ROWS, 1)).any()


def test_numbers_are_standard_normal_and_independent() -> None:
    """Bounds of six standard errors."""
    normals = row_normals(ROWS).astype(np.float64)
    bound = 6 / np.sqrt(len(ROWS))
    assert np.abs(normals.mean(axis=0)).max() < bound
    assert np.abs(np.cov(normals.T) - np.eye(6)).max() < 1.5 * bound
    assert np.abs(np.corrcoef(normals[:-1].ravel(), normals[1:].ravel())[0, 1]) < bound


@pytest.mark.parametrize("noise", [0.0, 1.0, 20.0])
def test_a_blur_moves_little_where_the_covariance_does(noise: float) -> None:
    """Eigenvectors have no sign; a factor made of them moved the noise of every row."""
    whole, without = (
        MappedChannel.blur(rows.mean(axis=0), np.cov(rows.T), noise).apply(ROWS[1:]) for rows in (ROWS, ROWS[1:])
    )
    assert np.abs(whole - without).max() < 0.05
