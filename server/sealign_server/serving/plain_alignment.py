"""Plain alignment: the client's rows of a public set come in, a map goes to the store."""

from __future__ import annotations

import numpy as np
import structlog
from numpy.typing import NDArray

from sealign.alignment import AffineMap, RidgeStatistics, fit_map, fit_ridge, weigh_shared
from sealign.errors import InvalidInputError
from sealign.protocol import AlignmentRequest
from sealign_server.serving.space import Space
from sealign_server.store import MapRecord

_log = structlog.get_logger()

_FOLDS = 5
_FITTING = 6
"""Matrices of the fit beside those of the folds."""


def plain_bytes(space: Space, request: AlignmentRequest) -> int:
    """Return the memory that an alignment takes, from what the client announces.

    Raises:
        NotFoundError: the space does not hold the public set.
    """
    source, target = request.encoder.dimension, space.store.encoder.dimension
    card = space.store.public_set(request.public_set)
    moments = 8 * (source * source + source * target + target * target)
    statistics = moments * (_FOLDS * (1 if card.base is None else 4) + _FITTING)
    return statistics + (0 if space.holds_states else card.rows * 4 * target)


class PlainAlignment:
    """One run of plain alignment, in memory that the header decides; nothing is kept until :meth:`learn`.

    Args:
        space: that is aligned with.
        identity: whose map it will be.
        request: what the client announces.

    Raises:
        NotFoundError: the space does not hold the public set.
        InvalidInputError: embeddings that are not normalised, or another number of rows.
    """

    def __init__(self, space: Space, identity: str, request: AlignmentRequest) -> None:
        self._space, self._identity, self._encoder = space, identity, request.encoder
        if not (request.encoder.normalised or space.holds_states):
            raise InvalidInputError(
                "the client's embeddings are not L2-normalised, which the plans rely on: set normalise=true for "
                "the encoder"
            )
        self._public = space.public(request.public_set, request.rows)
        base = self._public.card.base
        self._unshared = space.store.public_set(base).rows if base else request.rows
        dimensions = request.encoder.dimension, self._public.rows.shape[1]
        self._statistics = RidgeStatistics(*dimensions, _FOLDS)
        self._shared = RidgeStatistics(*dimensions, _FOLDS) if base else None
        self._largest = 0.0
        self._spool = space.store.row_spool(request.encoder.dimension) if space.holds_states else None

    def add(self, rows: NDArray[np.float32]) -> None:
        """Add the next rows, (k, s).

        Raises:
            InvalidInputError: too many, or values that are not finite or not normalised.
        """
        start = self._rows
        if start + len(rows) > self._public.card.rows:
            raise InvalidInputError(f"the client sends more than the {self._public.card.rows} rows it announced")
        if np.isfinite(rows).all():  # others are refused by the statistics
            self._measure(rows)
        target = self._public.rows[start : start + len(rows)]
        public = max(self._unshared - start, 0)  # shared examples come after all others
        self._statistics.update(rows[:public], target[:public])
        if self._shared is not None:
            self._shared.update(rows[public:], target[public:])

    def require_complete(self) -> None:
        """Refuse a stream that ended early.

        Raises:
            InvalidInputError: rows are missing.
        """
        if self._rows != self._public.card.rows:
            raise InvalidInputError(
                f"the stream ended after {self._rows} of {self._public.card.rows} rows; nothing was learned. Align "
                "again."
            )

    def learn(self) -> MapRecord:
        """Fit the map and keep it.

        Raises:
            InvalidInputError: rows are missing, or of no use.
            StorageError: the map could not be written; earlier ones stay.
        """
        self.require_complete()
        learned = self._fitted()
        rows = None if self._spool is None else self._spool.rows()
        record = self._space.save_map(self._identity, learned, self._largest if self._space.holds_states else 1.0, rows)
        _log.info(
            "map learned",
            space=self._space.name,
            identity=self._identity,
            encoder=learned.source_fingerprint,
            map=learned.id,
            public_set=learned.public_set[:12],
            rows=learned.quality.rows,
            explained_variance=round(learned.quality.explained_variance, 4),
        )
        return record

    @property
    def _rows(self) -> int:
        return self._statistics.rows + (0 if self._shared is None else self._shared.rows)

    def _fitted(self) -> AffineMap:
        statistics = self._statistics
        if self._shared is not None and self._shared.rows:
            statistics, weight = weigh_shared(statistics, self._shared)
            _log.info("shared examples weighed", count=self._shared.rows, weight=weight)
        # A fitted head makes up for what a map shrinks; the trained one gains from a map that does not shrink.
        fit = fit_ridge if self._space.holds_states or self._space.options.fit_heads else fit_map
        return fit(
            statistics,
            source_fingerprint=self._encoder.fingerprint,
            target_fingerprint=self._space.store.encoder.fingerprint,
            public_set=self._public.card.digest,
        )

    def _measure(self, rows: NDArray[np.float32]) -> None:
        norms = np.linalg.norm(rows, axis=1)
        if self._spool is not None:
            self._largest = max(self._largest, float(norms.max()))
            self._spool.append(rows)
        elif not np.allclose(norms, 1.0, atol=1e-2):
            raise InvalidInputError("embeddings of the public set are not L2-normalised as the encoder's card says")
