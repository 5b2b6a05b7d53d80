"""A mixture, at the client, of the silo's next-token distribution and the client's own.

What the client does after decryption is free: the silo learns nothing of the mixture, nor that there is one. Weights
of linear mixtures are fitted by expectation maximisation (Jelinek and Mercer, "Interpolated estimation of Markov source
parameters from sparse data", 1980).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError

_STEPS = 200
_LEAST = 1e-3
"""Neither side's weight is fitted below this: a few positions cannot say that it is worth nothing."""


def fit_weight(silo: NDArray[np.float64], own: NDArray[np.float64]) -> float:
    """Return the weight of the client's own distribution that makes what follows likeliest, between 0.001 and 0.999.

    Args:
        silo: log-probabilities of the tokens that follow by the silo's distribution, (n,).
        own: the same by the client's own, rewritten as the silo's tokens, (n,).

    Raises:
        InvalidInputError: no positions, different numbers of them, or numbers that are not finite.
    """
    if not len(silo) or len(silo) != len(own) or not (np.isfinite(silo).all() and np.isfinite(own).all()):
        raise InvalidInputError(f"no weight fits {len(silo)} and {len(own)} positions; give the same ones, all finite")
    weight = 0.5
    for _ in range(_STEPS):
        # The share of each position's probability that is the client's own; the likelihood has one maximum.
        odds = np.exp(np.clip(silo - own, -700, 700)) * (1 - weight) / weight
        weight = float(np.clip(np.mean(1 / (1 + odds)), _LEAST, 1 - _LEAST))
    return weight


def mixed(silo: NDArray[np.float64], own: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """Return log-probabilities of the mixture of two distributions, of their shape; ``weight`` is the client's own."""
    logarithms: NDArray[np.float64] = np.logaddexp(silo + np.log1p(-weight), own + np.log(weight))
    return logarithms
