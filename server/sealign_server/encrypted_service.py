"""Encrypted alignment as a call: header, offer, blocks, parts of the product, and coming back after a break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import perf_counter
from typing import Protocol, TypeVar

import structlog

from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, ReleaseRefusedError, UnavailableError, UnknownSessionError
from sealign.protocol.conversions import encoder_from_wire, matrix_from_wire, part_to_wire, plan_to_wire
from sealign.protocol.v1 import silo_pb2 as pb
from sealign_server.callers import within
from sealign_server.encrypted_alignment import AlignmentSlot, EncryptedAlignment, ResumableAlignment
from sealign_server.public_keys import PublicKeyCache
from sealign_server.releases import Release, ReleaseLedger
from sealign_server.unsent_products import UnsentProduct, UnsentProducts

_log = structlog.get_logger()

_T = TypeVar("_T")
Requests = AsyncIterator[pb.EncryptedAlignRequest]
Replies = AsyncIterator[pb.EncryptedAlignReply]


class AlignmentTarget(Protocol):
    """What is aligned with: a silo's embeddings of public texts, or a generation task's states over them."""

    releases: ReleaseLedger
    unsent: UnsentProducts

    def release(self, encoder: EncoderCard, public_set: str, rows: int, client: str) -> Release:
        """What an alignment would count as."""
        ...

    def encrypted_alignment(self, encoder: EncoderCard, release: Release) -> EncryptedAlignment:
        """A run of encrypted alignment for an encoder."""
        ...


class EncryptedAlignments:
    """Answers calls of AlignEncrypted. One alignment at a time is summed; any number of products is sent.

    Args:
        silo: what is aligned with.
        keys: the clients' public keys.
        seconds: how long to wait for a client's next block, or for a client that is away while its blocks are summed.
    """

    def __init__(self, silo: AlignmentTarget, keys: PublicKeyCache, seconds: float) -> None:
        self._silo = silo
        self._keys = keys
        self._slot = AlignmentSlot(seconds)
        self._beginning = asyncio.Lock()

    async def answer(self, requests: Requests, client: str) -> Replies:
        """Replies to one call.

        Raises:
            OverloadedError: another alignment is under way.
            UnknownSessionError: the session that the client comes back to is gone.
            UnavailableError: the client sent nothing for too long.
            ReleaseRefusedError: nothing more is released to this client over this set.
            StorageError: the product could not be kept, or the release not counted; nothing was released.
            SealignError: as :class:`EncryptedAlignment`.
        """
        requests = within(requests, self._slot.seconds)
        request = await self._next(requests)
        self._require(request, "header")
        header, encoder = request.header, encoder_from_wire(request.header.encoder)
        release = await asyncio.to_thread(self._silo.release, encoder, header.public_set, header.rows, client)
        # The sums before the files: a product is in its file before its session leaves the slot.
        session = self._slot.find(header.session, release) if header.session else await self._begun(encoder, release)
        if session is not None:
            async for reply in self._summed(session, requests):
                yield reply
            product = session.product
        else:
            product = await asyncio.to_thread(self._silo.unsent.find, header.session, release)
            if product is None:
                raise UnknownSessionError(
                    "the silo does not hold this encrypted alignment: it restarted, another of its workers does, or "
                    "the client was away for too long; start again"
                )
            yield pb.EncryptedAlignReply(offer=product.offer)
        if product is not None:
            async for reply in self._sent(product, header.parts_received, requests):
                yield reply

    async def _begun(self, encoder: EncoderCard, release: Release) -> ResumableAlignment:
        async with self._beginning:
            self._slot.require_free(release.client)
            self._silo.unsent.require_room(release.client)
            alignment = await asyncio.to_thread(self._silo.encrypted_alignment, encoder, release)
            _log.info(
                "encrypted alignment begun", client=release.client, encoder=release.encoder[:12], rows=release.rows
            )
            return self._slot.begin(alignment)

    async def _summed(self, session: ResumableAlignment, requests: Requests) -> Replies:
        """Offer, and word of each block; then the session has its product, which is in a file."""
        alignment = session.alignment
        attachment = self._slot.attach(session)
        done = False
        try:
            # A call that had the session may be adding a block still.
            next_block = await self._exclusively(session, attachment, lambda: alignment.next_block)
            offer = pb.AlignmentOffer(session=session.id, plan=plan_to_wire(alignment.plan), next_block=next_block)
            yield pb.EncryptedAlignReply(offer=offer)
            while alignment.next_block < alignment.blocks:
                await self._add(session, attachment, await self._next(requests))
                yield pb.EncryptedAlignReply(taken=pb.BlocksTaken(next_block=alignment.next_block))
            session.product = await self._exclusively(session, attachment, partial(self._finished, session))
            done = True
        except InvalidInputError:
            done = True  # there is nothing to come back to
            raise
        finally:
            self._slot.detach(session, attachment, done=done)

    def _finished(self, session: ResumableAlignment) -> UnsentProduct:
        alignment = session.alignment
        parts = tuple(map(part_to_wire, alignment.finish()))
        plan = plan_to_wire(alignment.plan)
        offer = pb.AlignmentOffer(session=session.id, plan=plan, next_block=alignment.blocks)
        product = UnsentProduct(session.id, alignment.release, offer, parts)
        self._silo.unsent.keep(product)
        return product

    async def _sent(self, product: UnsentProduct, received: int, requests: Requests) -> Replies:
        """The parts that the client lacks. Until it says that it has everything, it may come back for them."""
        try:
            counted = await asyncio.to_thread(self._silo.releases.record, product.release, product.session.hex())
        except ReleaseRefusedError:
            self._silo.unsent.remove(product)
            raise
        if counted:
            _log.info(
                "cross-covariance released",
                client=product.release.client,
                encoder=product.release.encoder[:12],
                public_set=product.release.public_set[:12],
                rows=product.release.rows,
                dimension=product.release.dimension,
            )
        for part in product.parts[received:]:
            yield pb.EncryptedAlignReply(product=part)
        self._require(await self._next(requests), "received")
        self._silo.unsent.remove(product)

    async def _add(self, session: ResumableAlignment, attachment: object, request: pb.EncryptedAlignRequest) -> None:
        started = perf_counter()
        self._require(request, "block")
        block = request.block
        zeros = self._keys.pool(block.rows.key_id)
        rows = matrix_from_wire(block.rows)
        await self._exclusively(session, attachment, partial(session.alignment.add, block.index, rows, zeros))
        _log.debug("inner block", index=block.index, ms=round((perf_counter() - started) * 1e3, 1))

    async def _next(self, requests: Requests) -> pb.EncryptedAlignRequest:
        request = await anext(requests, None)
        if request is None:  # also how a broken connection looks
            raise UnavailableError("the stream ended before the alignment did; come back to go on with it")
        return request

    @staticmethod
    def _require(request: pb.EncryptedAlignRequest, part: str) -> None:
        if request.WhichOneof("part") != part:
            raise InvalidInputError(
                f"an encrypted alignment is a header, the plan's inner blocks, and word that the product has come, in "
                f"this order; here {part!r} was expected"
            )

    @staticmethod
    async def _exclusively(session: ResumableAlignment, attachment: object, work: Callable[[], _T]) -> _T:
        """Work on a session in a thread, alone; work that has begun ends even if its call does not wait."""

        async def alone() -> _T:
            async with session.lock:
                if session.attachment is not attachment:
                    raise UnknownSessionError("the client has come back to this alignment with another call")
                return await asyncio.to_thread(work)

        return await asyncio.shield(asyncio.ensure_future(alone()))
