"""Folds follow the content of rows, and leave every class some rows."""

from __future__ import annotations

import numpy as np

from sealign.heads.folds import folds_of

COUNT = 5


def test_a_row_less_moves_no_other() -> None:
    rows, targets = np.random.default_rng(0).normal(size=(400, 3)), np.arange(400) % 3
    assert (folds_of(rows, targets, COUNT)[1:] == folds_of(rows[1:], targets[1:], COUNT)).all()


def test_equal_rows_stay_together() -> None:
    rows, targets = np.repeat(np.random.default_rng(0).normal(size=(100, 3)), 2, axis=0), np.zeros(200, dtype=np.intp)
    folds = folds_of(rows, targets, COUNT)
    assert (folds[::2] == folds[1::2]).all()
    assert np.bincount(folds).min() > 10


def test_others_know_every_class_by_all_rows_but_one_of_each_fold() -> None:
    """Also a class of one text that stands there again and again."""
    sizes = [2, 3, 4, 9, 30]
    targets = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.random.default_rng(0).normal(size=(len(targets), 3))
    rows[targets == 4] = 1.0
    folds = folds_of(rows, targets, COUNT)
    for number, size in enumerate(sizes):
        assert np.bincount(folds[targets == number]).max() == -(-size // COUNT)


def test_many_small_classes_fill_all_folds() -> None:
    targets = np.repeat(np.arange(1000), 2)
    rows = np.random.default_rng(0).normal(size=(2000, 3))
    counts = np.bincount(folds_of(rows, targets, COUNT), minlength=COUNT)
    assert counts.min() > 250  # 400 each; eight standard deviations
