"""Noise and accounting against OpenDP's own figures and the papers'."""

from __future__ import annotations

import sys
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealign.errors import InvalidInputError
from sealign.synthetic import PrivacyLoss, VotingRun, noise_scale, noisy, privacy_loss, require_opendp

DELTA = 1e-5


def test_the_loss_of_a_known_run() -> None:
    """rho = 3 / (2 · 3²) = 1/6. OpenDP 0.16 gives 2.5412; Bun and Steinke's bound is rho + 2·sqrt(rho·ln(1/delta))."""
    loss = privacy_loss([VotingRun(3, 3.0)], DELTA)
    assert loss.epsilon == pytest.approx(2.5412, abs=1e-3)
    assert loss.epsilon < 1 / 6 + 2 * sqrt(log(1 / DELTA) / 6)


def test_runs_add_up() -> None:
    """Rho adds up: four rounds of scale 2 lose as much as one of scale 1."""
    once = privacy_loss([VotingRun(1, 1.0)], DELTA)
    assert privacy_loss([VotingRun(1, 2.0)] * 4, DELTA).epsilon == pytest.approx(once.epsilon, rel=1e-6)
    assert privacy_loss([VotingRun(2, 2.0)] * 2, DELTA).epsilon == pytest.approx(once.epsilon, rel=1e-6)
    assert privacy_loss([VotingRun(1, 2.0)], DELTA).epsilon < once.epsilon


@settings(max_examples=8, deadline=None)
@given(epsilon=st.floats(0.2, 10), rounds=st.integers(1, 4))
def test_the_scale_keeps_to_what_is_wanted_and_wastes_little(epsilon: float, rounds: int) -> None:
    scale = noise_scale(PrivacyLoss(epsilon, DELTA), rounds)
    lost = privacy_loss([VotingRun(rounds, scale)], DELTA).epsilon
    assert 0.95 * epsilon <= lost <= epsilon


def test_noise_has_the_scale_and_is_never_the_same() -> None:
    counts = np.arange(20_000, dtype=np.int64)
    noise = noisy(counts, 4.0) - counts
    assert abs(noise.mean()) < 0.15
    assert noise.std() == pytest.approx(4.0, rel=0.03)
    assert not np.array_equal(noise, noisy(counts, 4.0) - counts)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, DELTA), (-1.0, DELTA), (101.0, DELTA), (1.0, 0.0), (1.0, 0.5)])
def test_losses_out_of_bounds_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(InvalidInputError, match="out of bounds"):
        PrivacyLoss(epsilon, delta)


def test_without_opendp_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(InvalidInputError, match=r'pip install "sealign\[private\]"'):
        require_opendp()
