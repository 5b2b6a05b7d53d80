"""Token states that also say what the client's own model predicts: more for an affine map to read, at no cost to it.

Between client and silo stands one affine map, so whatever is not linear in the client's state must be computed before.
The expected next embedding is such a thing: the client's next-token distribution, as a point among its tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sealign.encoders.encoder import Embeddings

_CHUNK = 64
"""Rows whose distributions are in memory at once."""
_ENTROPY = 0.2
"""Length of the entropy's column at one nat, as a share of a usual hidden state's."""


class Forecast:
    """Appends to final hidden states the expected next embedding and the entropy of the prediction.

    Embeddings are the rows of the language-model head about their mean.

    Attributes:
        width: columns appended.

    Args:
        weight: of the head, (V, d).
        bias: (V,), or None.
        usual: length of a usual hidden state; appended columns are scaled to it.
    """

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, usual: float) -> None:
        self._weight, self._bias = weight, bias
        self._mean = weight.mean(axis=0, dtype=np.float64).astype(np.float32)
        squares = np.einsum("vd,vd->", weight, weight, dtype=np.float64) / len(weight)
        length = np.sqrt(squares - np.square(self._mean, dtype=np.float64).sum())
        self._scale = np.float32(usual / length)
        self._entropy = np.float32(_ENTROPY * usual)
        self.width = weight.shape[1] + 1

    def __call__(self, states: Embeddings) -> Embeddings:
        """Return final hidden states (n, d) with the forecast behind them, (n, d + width)."""
        rows = np.empty((len(states), states.shape[1] + self.width), dtype=np.float32)
        rows[:, : states.shape[1]] = states
        for start in range(0, len(states), _CHUNK):
            some = slice(start, start + _CHUNK)
            self._fill(states[some], rows[some, states.shape[1] :])
        return rows

    def _fill(self, states: Embeddings, columns: NDArray[np.float32]) -> None:
        logits = states @ self._weight.T
        if self._bias is not None:
            logits += self._bias
        logits -= logits.max(axis=1, keepdims=True)
        mass = np.exp(logits)
        total = mass.sum(axis=1)
        columns[:, :-1] = self._scale * ((mass @ self._weight) / total[:, None] - self._mean)
        columns[:, -1] = self._entropy * (np.log(total) - np.einsum("nv,nv->n", mass, logits) / total)
