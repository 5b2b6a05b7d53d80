"""Plain alignment of token states: the client's come in, a map goes to the task's store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap
from sealign.encoders import EncoderCard
from sealign_server.alignment import AlignmentSession
from sealign_server.generation_store import save_client_states, save_row_norm
from sealign_server.store import SiloStore


class StateAlignment(AlignmentSession):
    """As `AlignmentSession`, for states of any norm; the client's are kept, so that its map can be refined.

    Args:
        states: the task's public sets and maps.
        model: the client's model.
        public_set: digest that both sides computed over the same texts.
        rows: one for each of the silo's tokens that both sides count.
    """

    def __init__(self, states: SiloStore, model: EncoderCard, public_set: str, rows: int) -> None:
        super().__init__(states, model, public_set, rows)
        self._largest = 0.0
        self._chunks: list[NDArray[np.float16]] = []

    def _check_encoder(self) -> None:
        """States need no norm."""

    def _check_rows(self, rows: NDArray[np.float32]) -> None:
        if np.isfinite(rows).all():  # others are refused by the statistics
            self._largest = max(self._largest, float(np.linalg.norm(rows, axis=1).max()))
            self._chunks.append(np.clip(rows, -65504, 65504).astype(np.float16))

    def _keep(self, learned: AffineMap) -> None:
        save_client_states(self._store, learned, np.concatenate(self._chunks))
        save_row_norm(self._store, learned.source_fingerprint, self._largest)
        super()._keep(learned)
