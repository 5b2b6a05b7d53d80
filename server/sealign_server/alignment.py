"""Plain alignment: the client's embeddings of a public set come in, a map goes to the store."""

from __future__ import annotations

import numpy as np
import structlog
from numpy.typing import NDArray

from sealign.alignment import AffineMap, RidgeStatistics, fit_map, fit_ridge, weigh_released
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError
from sealign_server.store import PublicEmbeddings, SiloStore

_log = structlog.get_logger()

MAX_DIMENSION = 8192
"""Statistics take memory that grows with its square: 3 GB here."""


def public_embeddings(store: SiloStore, encoder: EncoderCard, public_set: str, rows: int) -> PublicEmbeddings:
    """The silo's embeddings of the public set that a client wants to align over.

    Raises:
        NotFoundError: the silo does not hold that public set.
        InvalidInputError: the client's embeddings are too long, or the numbers of texts differ.
    """
    public = store.load_public_set(public_set)
    if rows != public.card.rows:
        raise InvalidInputError(f"the public set has {public.card.rows} texts, the client announces {rows}")
    if encoder.dimension > MAX_DIMENSION:
        raise InvalidInputError(
            f"an encoder of {encoder.dimension} dimensions cannot be aligned, the most is {MAX_DIMENSION}"
        )
    return public


class AlignmentSession:
    """One run of plain alignment, in constant memory; nothing is kept until :meth:`learn`.

    Args:
        store: holds the silo's own embeddings of the public set.
        encoder: the client's encoder.
        public_set: digest that both sides computed over the same texts.
        rows: number of texts the client has.
        families: choose among families of maps on held-out texts, for heads that are not fitted to the map.

    Raises:
        NotFoundError: the silo does not hold that public set.
        InvalidInputError: the encoder's embeddings are not normalised or too long, or the numbers of texts differ.
    """

    def __init__(
        self, store: SiloStore, encoder: EncoderCard, public_set: str, rows: int, *, families: bool = False
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._fit = fit_map if families else fit_ridge
        self._public = public_embeddings(store, encoder, public_set, rows)
        self._check_encoder()
        base = self._public.card.base
        self._unreleased = store.public_set(base).rows if base else rows
        dimensions = encoder.dimension, self._public.rows.shape[1]
        self._statistics, self._released = RidgeStatistics(*dimensions), RidgeStatistics(*dimensions)

    @property
    def target(self) -> str:
        """Name of the silo, or of the generation task, into whose space the map leads."""
        return self._store.document.name

    def add(self, values: bytes) -> None:
        """Add the next rows of the client's embeddings, row-major little-endian float32.

        Raises:
            InvalidInputError: not whole rows, too many, or values that are not finite or not normalised.
        """
        row_bytes = 4 * self._encoder.dimension
        if not values or len(values) % row_bytes:
            raise InvalidInputError(
                f"{len(values)} bytes are not whole rows of {self._encoder.dimension} float32 values"
            )
        rows = np.frombuffer(values, dtype="<f4").reshape(-1, self._encoder.dimension)
        start = self._rows
        if start + len(rows) > self._public.card.rows:
            raise InvalidInputError(f"the client sends more than the {self._public.card.rows} rows it announced")
        self._check_rows(rows)
        target = self._public.rows[start : start + len(rows)]
        public = max(self._unreleased - start, 0)  # released texts come after all others
        self._statistics.update(rows[:public], target[:public])
        self._released.update(rows[public:], target[public:])

    def learn(self) -> AffineMap:
        """Fit the map and keep it; an earlier map of the encoder is replaced only now.

        Raises:
            InvalidInputError: rows are missing.
            StorageError: the map could not be written; the earlier one stays.
        """
        if self._rows != self._public.card.rows:
            raise InvalidInputError(
                f"the stream ended after {self._rows} of {self._public.card.rows} rows; nothing was "
                "learned. Align again."
            )
        statistics = self._statistics
        if self._released.rows:
            statistics, weight = weigh_released(statistics, self._released)
            _log.info("released texts weighed", count=self._released.rows, weight=weight)
        learned = self._fit(
            statistics,
            source_fingerprint=self._encoder.fingerprint,
            target_fingerprint=self._store.document.encoder_card.fingerprint,
            public_set=self._public.card.digest,
        )
        self._keep(learned)
        return learned

    @property
    def _rows(self) -> int:
        return self._statistics.rows + self._released.rows

    def _check_encoder(self) -> None:
        if not self._encoder.normalised:
            raise InvalidInputError(
                "the client's embeddings are not L2-normalised, which the plans rely on: set normalise=true for "
                "the encoder"
            )

    def _check_rows(self, rows: NDArray[np.float32]) -> None:
        if np.isfinite(rows).all() and not np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-2):
            raise InvalidInputError("embeddings of the public set are not L2-normalised as the encoder's card says")

    def _keep(self, learned: AffineMap) -> None:
        learned.save(self._store.map_path(self._encoder.fingerprint))
