"""Encrypted alignment: ciphertexts of the client's embeddings come in, a cross-covariance goes out.

The client's embeddings of the public set stay encrypted; the silo's stay here but for the product.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from math import floor, log2, sqrt

import numpy as np
import structlog

from sealign.alignment import require_enough_texts
from sealign.ckks import (
    EncryptedMatrix,
    EncryptedProduct,
    PackingPlan,
    StreamedProduct,
    ZeroPool,
    candidates,
    product_shape,
)
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, OverloadedError, UnknownSessionError
from sealign_server.alignment import public_embeddings
from sealign_server.releases import Release, ReleaseLedger
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore

_log = structlog.get_logger()

RELATIVE_PRECISION = 2.0**-15
"""Error of an entry of the product, as a share of the root mean square norm of the silo's dimensions: with real
encoders this moves the ridge map by some 3e-4 of its norm."""


MAX_MESSAGE_BYTES = 30 << 20
"""Of the ciphertexts in one message: within gRPC's limit here, with room for their frames."""


class EncryptedAlignment:
    """One run of encrypted alignment. Its memory is the plan's sums; nothing of it is stored.

    Args:
        store: holds the silo's own embeddings of the public set.
        ledger: counts releases.
        settings: precision of parameters, memory.
        encoder: the client's encoder.
        public_set: digest that both sides computed over the same texts.
        rows: number of texts the client has.
        client: who asks, for the ledger.

    Raises:
        NotFoundError: the silo does not hold that public set.
        InvalidInputError: too few texts, another number of texts, or silo embeddings that cannot be used.
        ReleaseRefusedError: nothing more is released to this client over this set.
    """

    def __init__(
        self,
        store: SiloStore,
        ledger: ReleaseLedger,
        settings: ServeSettings,
        encoder: EncoderCard,
        public_set: str,
        rows: int,
        client: str,
    ) -> None:
        public = public_embeddings(store, encoder, public_set, rows)
        require_enough_texts(rows, encoder.dimension, public.rows.shape[1])
        self.release = Release(public_set, encoder.fingerprint, client, rows, encoder.dimension)
        self._ledger = ledger
        ledger.require_open(self.release)
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
        self._unsent: Iterator[EncryptedProduct] | None = None
        self._parts: list[EncryptedProduct] = []

    @property
    def next_block(self) -> int:
        """The inner block that is missing first."""
        return 0 if self._product is None else self._product.inner_blocks_done

    @property
    def blocks(self) -> int:
        """Number of inner blocks."""
        return self.plan.counts[1]

    @property
    def parts(self) -> int:
        """Number of parts of the product."""
        return self.plan.counts[0]

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

    def part(self, index: int) -> EncryptedProduct:
        """One part of the finished product; asked for again, the same bytes. The first one counts as the release.

        Raises:
            InvalidInputError: blocks are missing, or there is no such part.
            ReleaseRefusedError, StorageError: it may not be released, or could not be counted; nothing leaves.
        """
        if self._product is None or not self._product.is_complete or not 0 <= index < self.parts:
            raise InvalidInputError(f"part {index} was asked for with {self.next_block} of {self.blocks} blocks summed")
        if self._unsent is None:
            self._ledger.record(self.release)
            _log.info(
                "cross-covariance released",
                client=self.release.client,
                encoder=self.release.encoder[:12],
                public_set=self.release.public_set[:12],
                rows=self.release.rows,
                dimension=self.release.dimension,
            )
            self._unsent = self._product.finish()
        while len(self._parts) <= index:
            self._parts.append(next(self._unsent))
        return self._parts[index]


def _largest_message(plan: PackingPlan) -> int:
    """Bytes of an inner block or of a part of the product, whichever is more."""
    row_blocks, inner_blocks, _ = plan.counts
    return max(plan.cost.request_bytes // inner_blocks, plan.cost.reply_bytes // row_blocks)


class ResumableAlignment:
    """An encrypted alignment under a name with which its client can come back to it."""

    def __init__(self, alignment: EncryptedAlignment) -> None:
        self.id = secrets.token_bytes(16)
        self.alignment = alignment
        self.lock = asyncio.Lock()
        self.attachment: object | None = None
        self.expiry: asyncio.TimerHandle | None = None


class AlignmentSlot:
    """The one encrypted alignment of this process; one whose client is away is kept for ``seconds``."""

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

    def resumed(self, name: bytes, release: Release) -> ResumableAlignment:
        """The session that a client comes back to.

        Raises:
            UnknownSessionError: it is gone, or is not this client's.
        """
        session = self._session
        if session is None or session.id != name or session.alignment.release != release:
            raise UnknownSessionError(
                "the silo does not hold this encrypted alignment any more (it restarted, or the client was away for "
                f"longer than {self.seconds:.0f} s): start again"
            )
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
