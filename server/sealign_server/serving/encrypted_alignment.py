"""Encrypted alignment: ciphertexts of the client's rows come in, a cross-covariance goes out.

The client's rows of the public set stay encrypted; the silo's stay here but for the product.
"""

from __future__ import annotations

from math import floor, log2, sqrt

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import require_enough_texts
from sealign.ckks import (
    EncryptedMatrix,
    PackingPlan,
    PublicKey,
    StreamedProduct,
    WeightRows,
    ZeroPool,
    candidates,
    product_shape,
)
from sealign.defaults import ALIGNMENT_PRECISION
from sealign.errors import InvalidInputError, UnknownKeyError
from sealign.files import row_parts
from sealign.protocol import AlignmentRequest, CrossCovariancePart
from sealign_server.ledger import Release
from sealign_server.serving.space import Space

MAX_MESSAGE_BYTES = 30 << 20
"""Ciphertexts in one message: within gRPC's limit here, with room for their frames."""


class EncryptedAlignment:
    """One run of encrypted alignment, up to the finished product. Its memory is the plan's sums; nothing is stored.

    Args:
        space: that is aligned with.
        request: what the client announces.
        release: what the product will count as; its dimension is the number of rows of the product.
        key: that the client encrypts under; its parameter set is taken if a plan can be made for it.

    Raises:
        NotFoundError: the space does not hold that public set.
        InvalidInputError: too few texts, another number of texts, or silo's rows that cannot be used.
    """

    def __init__(self, space: Space, request: AlignmentRequest, release: Release, key: PublicKey | None) -> None:
        public = space.public(request.public_set, request.rows)
        require_enough_texts(request.rows, release.dimension, public.rows.shape[1])
        self.release = release
        self.key_id: bytes | None = None
        self._rows_bytes = rows_bytes(space, request)
        self._weight = centred_weights(public.rows)
        self.squared_norm = float(np.sum(self._weight.norms**2))
        if not self.squared_norm > 0:
            raise InvalidInputError(
                "the silo's embeddings of the public set are all the same or not finite; the silo's operator must "
                "embed the set again (sealign-server init --public)"
            )
        self.plan = _plan(self._weight, self.squared_norm, release.dimension, space, key)
        self._zeros: ZeroPool | None = None
        self._product: StreamedProduct | None = None
        self._parts: tuple[CrossCovariancePart, ...] = ()
        if key is not None:
            self.use_key(key)

    @property
    def byte_count(self) -> int:
        """Memory of sums and the silo's rows."""
        return self.plan.cost.accumulator_bytes + self._rows_bytes

    @property
    def next_block(self) -> int:
        """The inner block that is missing first."""
        return 0 if self._product is None else self._product.inner_blocks_done

    @property
    def blocks(self) -> int:
        """Number of inner blocks."""
        return self.plan.counts[1]

    def use_key(self, key: PublicKey) -> None:
        """Take the client's key; until a block is summed it may be another than before.

        Raises:
            InvalidInputError: blocks under another key are summed, or the key is malformed.
        """
        if key.id == self.key_id:
            return
        if self._product is not None:
            raise InvalidInputError("blocks under another key are summed already; come back with that key")
        self.key_id, self._zeros = key.id, ZeroPool(key)

    def add(self, index: int, rows: EncryptedMatrix) -> None:
        """Add an inner block.

        Raises:
            StalePlanError, InvalidInputError, UnknownKeyError: another block than the next one, a malformed one, or one
                without a key; nothing was added.
        """
        if index != self.next_block or index >= self.blocks:
            raise InvalidInputError(
                f"inner block {index} came, but of {self.blocks} blocks number {self.next_block} is the next"
            )
        if self._zeros is None:
            raise UnknownKeyError("the alignment has no key yet; send it in the header")
        if self._product is None:
            self._product = StreamedProduct(self.plan, self._weight, self._zeros)
        self._product.add(rows)

    def finish(self) -> tuple[CrossCovariancePart, ...]:
        """Return the sanitised product, part by part; asked for again, the same.

        Raises:
            InvalidInputError: blocks are missing.
        """
        if self._product is None or not self._product.is_complete:
            raise InvalidInputError(f"the product was asked for with {self.next_block} of {self.blocks} blocks summed")
        if not self._parts:
            products = enumerate(self._product.finish())
            self._parts = tuple(CrossCovariancePart(index, part, self.squared_norm) for index, part in products)
        return self._parts


def rows_bytes(space: Space, request: AlignmentRequest) -> int:
    """Return the memory of the silo's rows in an alignment; token states are mapped from a file."""
    return 0 if space.holds_states else 4 * request.rows * space.store.encoder.dimension


def centred_weights(rows: NDArray[np.floating]) -> WeightRows:
    """Return the silo's rows (n, t) less their mean, made part by part."""
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in row_parts(rows)) / len(rows)
    squares = sum(((part - mean) ** 2).sum(axis=0) for part in row_parts(rows))
    return WeightRows((len(rows), len(mean)), np.sqrt(squares), lambda first, last: rows[first:last] - mean)


def _plan(
    weight: WeightRows,
    squared_norm: float,
    rows: int,
    space: Space,
    key: PublicKey | None,
) -> PackingPlan:
    """Return the cheapest plan, of the key's parameter set where there is one."""
    outputs = weight.shape[1]
    precision = 2.0 ** floor(log2(ALIGNMENT_PRECISION * sqrt(squared_norm / outputs)))
    shape = product_shape(weight, np.zeros(outputs), rows=rows, precision=precision)
    options = space.options
    plans = candidates(shape, options.security_table, max_bytes=options.alignment_bytes, streamed=True)
    fitting = [plan for plan in plans if _largest_message(plan) <= MAX_MESSAGE_BYTES]
    if not fitting:
        raise InvalidInputError(
            f"{rows} and {outputs} dimensions are too many for encrypted alignment: a part of the product would be "
            "larger than a message may be. Use plain alignment."
        )
    suited = [plan for plan in fitting if key is not None and plan.parameters == key.parameters]
    return (suited or fitting)[0]


def _largest_message(plan: PackingPlan) -> int:
    """Return the bytes of an inner block or of a part of the product, whichever is more."""
    row_blocks, inner_blocks, _ = plan.counts
    return max(plan.cost.request_bytes // inner_blocks, plan.cost.reply_bytes // row_blocks)
