"""Encrypted alignment as a call: header, offer, blocks, parts of the product, and coming back after a break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import perf_counter
from typing import TypeVar

import structlog

from sealign.errors import InvalidInputError, ReleaseRefusedError, UnavailableError, UnknownSessionError
from sealign.protocol import CrossCovariancePart
from sealign.protocol.conversions import encoder_from_wire, matrix_from_wire, part_to_wire, plan_to_wire
from sealign.protocol.v1 import silo_pb2 as pb
from sealign_server.callers import within
from sealign_server.encrypted_alignment import AlignmentSlot, ResumableAlignment
from sealign_server.public_keys import PublicKeyCache
from sealign_server.releases import Release
from sealign_server.silo import Silo

_log = structlog.get_logger()

_T = TypeVar("_T")
Requests = AsyncIterator[pb.EncryptedAlignRequest]


class EncryptedAlignments:
    """Answers calls of AlignEncrypted, one alignment at a time.

    Args:
        silo: what is aligned with.
        keys: the clients' public keys.
        seconds: how long to wait for a client's next block, or for a client that is away.
    """

    def __init__(self, silo: Silo, keys: PublicKeyCache, seconds: float) -> None:
        self._silo = silo
        self._keys = keys
        self._slot = AlignmentSlot(seconds)
        self._beginning = asyncio.Lock()

    async def answer(self, requests: Requests, client: str) -> AsyncIterator[pb.EncryptedAlignReply]:
        """Replies to one call.

        Raises:
            OverloadedError: another alignment is under way.
            UnknownSessionError: the session that the client comes back to is gone.
            UnavailableError: the client sent nothing for too long.
            SealignError: as :class:`EncryptedAlignment`.
        """
        requests = within(requests, self._slot.seconds)
        header = await self._header(requests)
        session = await self._opened(header, client)
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
            for index in range(header.parts_received, alignment.parts):
                product = await self._exclusively(session, attachment, partial(alignment.part, index))
                part = CrossCovariancePart(index, product, alignment.squared_norm)
                yield pb.EncryptedAlignReply(product=part_to_wire(part))
            # Until the client says that it has everything, it may come back for parts.
            self._require(await self._next(requests), "received")
            done = True
        except (InvalidInputError, ReleaseRefusedError):
            done = True  # there is nothing to come back to
            raise
        finally:
            self._slot.detach(session, attachment, done=done)

    async def _header(self, requests: Requests) -> pb.EncryptedAlignHeader:
        request = await self._next(requests)
        self._require(request, "header")
        return request.header

    async def _opened(self, header: pb.EncryptedAlignHeader, client: str) -> ResumableAlignment:
        encoder = encoder_from_wire(header.encoder)
        if header.session:
            release = Release(header.public_set, encoder.fingerprint, client, header.rows, encoder.dimension)
            return self._slot.resumed(header.session, release)
        async with self._beginning:
            self._slot.require_free(client)
            alignment = await asyncio.to_thread(
                self._silo.encrypted_alignment, encoder, header.public_set, header.rows, client
            )
            _log.info("encrypted alignment begun", client=client, encoder=encoder.fingerprint[:12], rows=header.rows)
            return self._slot.begin(alignment)

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
