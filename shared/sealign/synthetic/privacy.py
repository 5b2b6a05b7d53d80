"""Noise on counts of votes, and what votes cost: all of it by OpenDP.

Each private text votes once in each round. One text more or less changes one count by one: the histogram has L2
sensitivity 1. OpenDP's discrete Gaussian draws from the operating system's randomness, and its zero-concentrated
differential privacy composes rounds and runs (Bun and Steinke, arXiv 1605.02065; Canonne et al., arXiv 2004.00010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError

_STEPS_PER_OCTAVE = 32
_SCALES = (-2 * _STEPS_PER_OCTAVE, 14 * _STEPS_PER_OCTAVE)
"""Noise scales considered: from a quarter to 16,384, in steps of 2 %."""


@dataclass(frozen=True)
class PrivacyLoss:
    """(ε, δ) under adding or removing one text.

    Attributes:
        epsilon: bound of the log-ratio of probabilities.
        delta: probability with which the bound may fail.

    Raises:
        InvalidInputError: a number out of bounds.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (0 < self.epsilon <= 100 and 0 < self.delta <= 0.01):
            raise InvalidInputError(
                f"epsilon {self.epsilon:g} and delta {self.delta:g} are out of bounds: give an epsilon above 0 and at "
                "most 100, and a delta above 0 and at most 0.01"
            )


@dataclass(frozen=True)
class VotingRun:
    """Rounds of votes under the same noise.

    Attributes:
        rounds: histograms that were released.
        scale: standard deviation of the discrete Gaussian on each count.
    """

    rounds: int
    scale: float


def require_opendp() -> None:
    """Check that OpenDP is installed.

    Raises:
        InvalidInputError: it is not.
    """
    _opendp()


def noise_scale(wanted: PrivacyLoss, rounds: int) -> float:
    """Return the smallest noise scale considered with which so many rounds lose at most what is wanted.

    Raises:
        InvalidInputError: OpenDP is not installed, there is no round, or no scale is large enough.
    """
    if rounds < 1:
        raise InvalidInputError(f"{rounds} rounds are no vote; give at least one")
    dp = _opendp()

    def suffices(step: int) -> bool:
        run = VotingRun(rounds, _scale(step))
        return privacy_loss([run], wanted.delta).epsilon <= wanted.epsilon

    low, high = _SCALES
    if not suffices(high):
        raise InvalidInputError(f"epsilon {wanted.epsilon:g} is too small for {rounds} rounds; give a larger one")
    return _scale(low if suffices(low) else dp.binary_search(suffices, bounds=(low, high)))


def privacy_loss(runs: Sequence[VotingRun], delta: float) -> PrivacyLoss:
    """Return what runs of votes of the same texts lose together.

    Raises:
        InvalidInputError: OpenDP is not installed, or there is no run.
    """
    if not runs:
        raise InvalidInputError("no run of votes loses nothing; give at least one")
    dp = _opendp()
    rounds = [_gaussian(dp, 1, run.scale) for run in runs for _ in range(run.rounds)]
    profile = dp.c.make_zCDP_to_approxDP(dp.c.make_composition(rounds)).map(1)
    return PrivacyLoss(float(profile.epsilon(delta=delta)), delta)


def noisy(counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
    """Return counts, (n,), with noise of a scale on each.

    Raises:
        InvalidInputError: OpenDP is not installed.
    """
    released = _gaussian(_opendp(), len(counts), scale)(counts.tolist())
    return np.asarray(released, dtype=np.int64)


def _scale(step: int) -> float:
    return float(2.0 ** (step / _STEPS_PER_OCTAVE))


def _gaussian(dp: Any, size: int, scale: float) -> Any:
    counts = dp.vector_domain(dp.atom_domain(T="i64"), size=size)
    return dp.m.make_gaussian(counts, dp.l2_distance(T="i64"), scale=scale)


def _opendp() -> Any:
    try:
        import opendp.prelude as dp
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f'private votes need the module {error.name!r}, which is not installed; run: pip install "sealign[private]"'
        ) from error
    dp.enable_features("contrib")
    return dp
