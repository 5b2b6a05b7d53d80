"""The sequential test of canaries: what it promises of honest silos, and how soon it finds others."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest

from sealign.errors import StorageError
from sealign_client.local.canaries import FALSE_ALARM_RATE, Baseline, CanaryStore, Tally


def tally_of(answers: str, outputs: int = 8, start: Tally | None = None) -> Tally:
    """The tally of answers: "r" right, "w" wrong."""
    tally = start or Tally()
    for answer in answers:
        tally = tally.with_answer(answer == "r", outputs)
    return tally


@pytest.mark.parametrize(("before", "wrong"), [(0, 1), (30, 1), (1000, 2), (100_000, 2)])
def test_one_wrong_answer_early_or_two_late_are_an_alarm(before: int, wrong: int) -> None:
    calm = Tally(before, 0, *_settled(before)) if before > 1000 else tally_of("r" * before)
    assert not calm.is_alarm
    assert calm.confidence == pytest.approx(0.0, abs=1e-9)
    alarmed = tally_of("w" * wrong, start=calm)
    assert alarmed.is_alarm
    assert alarmed.confidence >= 1 - FALSE_ALARM_RATE
    if wrong > 1:
        assert not tally_of("w" * (wrong - 1), start=calm).is_alarm
    assert tally_of("r" * 50, start=alarmed).is_alarm  # good behaviour afterwards does not undo it


def _settled(number: int) -> tuple[float, float]:
    """The state after so many right answers: products of the last few starts are all that is left."""
    settled = tally_of("r" * 1000)
    return settled.log_started - 2 * log(number / 1000), 0.0


def test_an_honest_silo_raises_no_alarm_more_often_than_is_stated() -> None:
    """Ville's inequality, at a rate that can be seen: with a known chance p, alarms come in less than p/threshold.

    The chance of a wrong answer is made large by an absurd number of outputs; the evidence then exceeds 1/a in a share
    of at most a of the runs.
    """
    outputs, p = 2_000_000_000, 2 * 3e-12 * 2_000_000_000
    rng, runs, a = np.random.default_rng(5), 400, 0.05
    exceeded = 0
    for wrong in rng.random((runs, 300)) < p:
        tally = Tally()
        for answer in wrong:
            tally = tally.with_answer(not answer, outputs)
        exceeded += tally.evidence >= -log(a)
    # Exact binomial tail: 400 runs of chance 0.05 give more than 50 with a chance below 1e-7.
    assert exceeded <= 50


def baseline(rows: int = 4, outputs: int = 3) -> Baseline:
    return Baseline("t", "r", np.full((rows, outputs), np.nan), 0.0)


def test_first_answers_are_kept_and_later_ones_compared_within_both_promises() -> None:
    first = baseline().with_answers(np.array([0, 2]), np.array([[1.0, 2, 3], [4, 5, 6]]), 0.25)
    assert list(first.unknown) == [1, 3]
    assert first.tally.compared == 0
    within = first.with_answers(np.array([0]), np.array([[1.45, 2, 3]]), 0.25)
    assert (within.tally.compared, within.tally.wrong) == (1, 0)
    beyond = first.with_answers(np.array([2]), np.array([[4, 5, 6.51]]), 0.25)
    assert (beyond.tally.compared, beyond.tally.wrong) == (1, 1)
    not_finite = first.with_answers(np.array([0]), np.array([[np.nan, 2, 3]]), 0.25)
    assert not_finite.tally.wrong == 1
    assert np.array_equal(within.expected, first.expected, equal_nan=True)  # what was first stays so
    assert within.tolerance == 0.25


def test_what_may_have_been_missed_shrinks_with_the_number_compared() -> None:
    rows = np.zeros((4, 3))
    known = baseline().with_answers(np.arange(4), rows, 0.25)
    assert known.report.undetected_share == 1.0
    for _ in range(75):
        known = known.with_answers(np.arange(4), rows, 0.25)
    report = known.report
    assert report.compared == 300
    assert 0.99**report.compared > (1 - report.undetected_share) ** report.compared == pytest.approx(0.01)


def test_files_hold_what_was_known_and_another_map_or_revision_begins_anew(tmp_path: Path) -> None:
    store, rows = CanaryStore(tmp_path / "maps"), np.random.default_rng(0).normal(size=(40, 6))
    assert store.rows("e" * 64) is None
    store.draw("e" * 64, rows)
    drawn = store.rows("e" * 64)
    assert drawn is not None
    assert drawn.shape == (32, 6)
    prepared = drawn.astype(np.float64)
    known = store.baseline("t", "r1", prepared, 3).with_answers(np.arange(32), np.ones((32, 3)), 0.25)
    known = known.with_answers(np.array([3]), np.zeros((1, 3)), 0.25)
    store.keep(known, prepared)
    again = CanaryStore(tmp_path / "maps").baseline("t", "r1", prepared, 3)
    assert np.array_equal(again.expected, known.expected)
    assert (again.tolerance, again.tally) == (known.tolerance, known.tally)
    assert len(store.baseline("t", "r2", prepared, 3).unknown) == 32
    assert len(store.baseline("t", "r1", prepared + 1e-9, 3).unknown) == 32
    assert [report.is_alarm for report in store.reports()] == [True]
    for path in (tmp_path / "maps").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    (file,) = (tmp_path / "maps").glob("*.baseline")
    file.write_bytes(b"damaged")
    with pytest.raises(StorageError, match="could not read"):
        store.reports()
    assert store.forget() == 1
    assert store.reports() == []
