"""Encrypted alignment: ciphertexts of the client's embeddings come in, a cross-covariance goes out.

The client's embeddings of the public set stay encrypted; the silo's stay here but for the product.
"""

from __future__ import annotations

import asyncio
import secrets
from math import floor, log2, sqrt

import numpy as np
import structlog

from sealign.alignment import require_enough_texts
from sealign.ckks import (
    EncryptedMatrix,
    PackingPlan,
    StreamedProduct,
    ZeroPool,
    candidates,
    product_shape,
)
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, OverloadedError
from sealign.protocol import CrossCovariancePart
from sealign_server.alignment import public_embeddings
from sealign_server.releases import Release
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore
from sealign_server.unsent_products import SESSION_BYTES, UnsentProduct

_log = structlog.get_logger()

RELATIVE_PRECISION = 2.0**-15
"""Error of an entry of the product, as a share of the root mean square norm of the silo's dimensions: with real
encoders this moves the ridge map by some 3e-4 of its norm."""


MAX_MESSAGE_BYTES = 30 << 20
"""Of the ciphertexts in one message: within gRPC's limit here, with room for their frames."""


class EncryptedAlignment:
    """One run of encrypted alignment, up to the finished product. Its memory is the plan's sums, nothing is stored.

    Args:
        store: holds the silo's own embeddings of the public set.
        settings: precision of parameters, memory.
        encoder: the client's encoder.
        release: what the product will count as.

    Raises:
        NotFoundError: the silo does not hold that public set.
        InvalidInputError: too few texts, another number of texts, or silo embeddings that cannot be used.
    """

    def __init__(self, store: SiloStore, settings: ServeSettings, encoder: EncoderCard, release: Release) -> None:
        public = public_embeddings(store, encoder, release.public_set, release.rows)
        require_enough_texts(release.rows, encoder.dimension, public.rows.shape[1])
        self.release = release
        target = public.rows.astype(np.float64)
        self._weight = target - target.mean(axis=0)
        self.squared_norm = float(np.sum(self._weight**2))
        if not self.squared_norm > 0:
            raise InvalidInputError(
                "the silo's embeddings of the public set are all the same or not finite; embed the set again "
                "(sealign-server init --public)"
            )
        outputs = target.shape[1]
        precision = 2.0 ** floor(log2(RELATIVE_PRECISION * sqrt(self.squared_norm / outputs)))
        shape = product_shape(self._weight, np.zeros(outputs), rows=encoder.dimension, precision=precision)
        limit = settings.alignment_memory_mb << 20
        plans = candidates(shape, settings.security_table, max_bytes=limit, streamed=True)
        fitting = [plan for plan in plans if _largest_message(plan) <= MAX_MESSAGE_BYTES]
        if not fitting:
            raise InvalidInputError(
                f"{encoder.dimension} and {outputs} dimensions are too many for encrypted alignment: a part of the "
                "product would be larger than a message may be. Use plain alignment."
            )
        self.plan = fitting[0]
        self._product: StreamedProduct | None = None
        self._parts: tuple[CrossCovariancePart, ...] = ()

    @property
    def next_block(self) -> int:
        """The inner block that is missing first."""
        return 0 if self._product is None else self._product.inner_blocks_done

    @property
    def blocks(self) -> int:
        """Number of inner blocks."""
        return self.plan.counts[1]

    def add(self, index: int, rows: EncryptedMatrix, zeros: ZeroPool) -> None:
        """Add an inner block; the first decides the key.

        Raises:
            StalePlanError, InvalidInputError: another block than the next one, or a malformed one; nothing was added.
        """
        if index != self.next_block or index >= self.blocks:
            raise InvalidInputError(
                f"inner block {index} came, but of {self.blocks} blocks number {self.next_block} is the next"
            )
        if self._product is None:
            self._product = StreamedProduct(self.plan, self._weight, zeros)
        self._product.add(rows)

    def finish(self) -> tuple[CrossCovariancePart, ...]:
        """The sanitised product, part by part; asked for again, the same.

        Raises:
            InvalidInputError: blocks are missing.
        """
        if self._product is None or not self._product.is_complete:
            raise InvalidInputError(f"the product was asked for with {self.next_block} of {self.blocks} blocks summed")
        if not self._parts:
            products = enumerate(self._product.finish())
            self._parts = tuple(CrossCovariancePart(index, part, self.squared_norm) for index, part in products)
        return self._parts


def _largest_message(plan: PackingPlan) -> int:
    """Bytes of an inner block or of a part of the product, whichever is more."""
    row_blocks, inner_blocks, _ = plan.counts
    return max(plan.cost.request_bytes // inner_blocks, plan.cost.reply_bytes // row_blocks)


class ResumableAlignment:
    """An encrypted alignment under a name with which its client can come back to it.

    Attributes:
        product: made once all blocks are summed.
    """

    def __init__(self, alignment: EncryptedAlignment) -> None:
        self.id = secrets.token_bytes(SESSION_BYTES)
        self.alignment = alignment
        self.product: UnsentProduct | None = None
        self.lock = asyncio.Lock()
        self.attachment: object | None = None
        self.expiry: asyncio.TimerHandle | None = None


class AlignmentSlot:
    """The one encrypted alignment that this process sums; one whose client is away is kept for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._session: ResumableAlignment | None = None

    def require_free(self, client: str) -> None:
        """Refuse a new alignment while another is under way; a client may replace its own if that is unattended.

        Raises:
            OverloadedError: the silo is aligning, or waits for a client to come back.
        """
        session = self._session
        if session is None:
            return
        if session.attachment is None and session.alignment.release.client == client:
            self._drop(session)
        else:
            raise OverloadedError(
                f"the silo is aligning another client, or waits up to {self.seconds:.0f} s for one to come back; try "
                "again later"
            )

    def begin(self, alignment: EncryptedAlignment) -> ResumableAlignment:
        """A session for a new alignment.

        Raises:
            OverloadedError: another has begun meanwhile.
        """
        self.require_free(alignment.release.client)
        self._session = ResumableAlignment(alignment)
        return self._session

    def find(self, name: bytes, release: Release) -> ResumableAlignment | None:
        """The session that a client comes back to; None if it is gone, or is not this client's."""
        session = self._session
        if session is None or session.id != name or session.alignment.release != release:
            return None
        return session

    def attach(self, session: ResumableAlignment) -> object:
        """Give a session to a call; a call that had it loses it. Returns what proves possession."""
        session.attachment = object()
        if session.expiry is not None:
            session.expiry.cancel()
        return session.attachment

    def detach(self, session: ResumableAlignment, attachment: object, *, done: bool) -> None:
        """The call has ended: forget the session, at once if ``done``, else when its client does not come back."""
        if session.attachment is not attachment:
            return
        session.attachment = None
        if done:
            self._drop(session)
        else:
            session.expiry = asyncio.get_running_loop().call_later(self.seconds, self._expire, session)

    def _expire(self, session: ResumableAlignment) -> None:
        alignment = session.alignment
        _log.warning(
            "encrypted alignment given up",
            encoder=alignment.release.encoder[:12],
            blocks=alignment.next_block,
            of=alignment.blocks,
        )
        self._drop(session)

    def _drop(self, session: ResumableAlignment) -> None:
        if session.expiry is not None:
            session.expiry.cancel()
        if self._session is session:
            self._session = None
