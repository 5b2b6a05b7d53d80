"""The Alignment service, for any space."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import structlog

from sealign.app.frame import Call
from sealign.app.within import Within
from sealign.ckks import PublicKey, SecurityTable
from sealign.errors import InvalidInputError, SealignError, UnavailableError, UnknownSessionError
from sealign.protocol import AlignmentRequest, SpaceCard
from sealign.protocol.conversions.alignment import (
    MAX_CHECK_ROWS,
    covariances_from_wire,
    offer_to_wire,
    part_to_wire,
    request_from_wire,
    rows_from_bytes,
    space_to_wire,
)
from sealign.protocol.conversions.checks import digest
from sealign.protocol.conversions.types import map_to_wire, matrix_from_wire, public_key_from_wire
from sealign.protocol.rows import AlignmentOffer
from sealign.protocol.signing import sign_card
from sealign.protocol.v1 import alignment_pb2 as pb
from sealign.protocol.v1.alignment_pb2_grpc import AlignmentServicer
from sealign_server.access import Bench, Share
from sealign_server.ledger import Release
from sealign_server.serving import Alignments, EncryptedSession, Silo
from sealign_server.serving.space import Space
from sealign_server.settings import ServingOptions
from sealign_server.store import SigningKeys, Undelivered

_log = structlog.get_logger()

Requests = AsyncIterator[pb.AlignEncryptedRequest]
Replies = AsyncIterator[pb.AlignEncryptedReply]


class AlignmentHandlers(AlignmentServicer):
    """Maps between a client's space and one of the silo's."""

    def __init__(self, silo: Silo, bench: Bench, options: ServingOptions, keys: SigningKeys) -> None:
        self._silo = silo
        self._keys = keys
        self._bench = bench
        self._seconds = options.alignment_seconds
        self._table: SecurityTable = options.security_table
        self._alignments = Alignments(options)

    async def DescribeSpace(  # type: ignore[override]  # noqa: N802
        self, request: pb.DescribeSpaceRequest, call: Call
    ) -> pb.SpaceCard:
        """The space, its public sets, and the caller's maps."""
        encoder = digest(request.encoder, "encoder's fingerprint") if request.HasField("encoder") else None
        dimension = request.dimension if request.HasField("dimension") else 0

        def card() -> SpaceCard:
            return self._silo.space(request.space).card(call.identity, encoder, dimension)

        with self._bench.admitted(Share.LOOKUP, call.identity, call.remaining) as room:
            message = space_to_wire(await room.do(card))
        sign_card(message, request, self._keys)
        return message

    async def Align(self, requests: AsyncIterator[pb.AlignRequest], call: Call) -> pb.AlignReply:  # type: ignore[override]  # noqa: N802
        """Learns and retains the map of an encoder from its rows of a public set."""
        call.idle_seconds = self._seconds
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidInputError("an alignment must begin with a header: space, encoder, public set, number of rows")
        request = request_from_wire(first.header)
        call.note(space=request.space, encoder=request.encoder.fingerprint, rows=request.rows)
        space = await asyncio.to_thread(self._silo.space, request.space)
        with self._alignments.plain(space, call.identity, request) as begin:
            alignment = await asyncio.to_thread(begin)
            with Within(self._seconds, self._too_slow):
                async for message in requests:
                    rows = rows_from_bytes(message.rows.values, request.encoder.dimension)
                    await asyncio.to_thread(alignment.add, rows)
            await asyncio.to_thread(alignment.require_complete)
            await asyncio.to_thread(space.count_map, call.identity, request.encoder.fingerprint)
            _record(call, "plain", request)
            with call.stage("learn"):
                record = await self._silo.heavy.do(call.identity, alignment.learn)
        reply = pb.AlignReply(map=map_to_wire(record.card))
        sign_card(reply, first.header, self._keys)
        return reply

    async def AlignEncrypted(self, requests: Requests, call: Call) -> Replies:  # type: ignore[override]  # noqa: N802
        """Answers encrypted rows of a public set with an encrypted cross-covariance."""
        call.idle_seconds = self._seconds
        header = (await _next(requests, "header")).header
        request = request_from_wire(header.alignment)
        if header.check_rows > MAX_CHECK_ROWS:
            raise InvalidInputError(f"{header.check_rows} check rows are more than the {MAX_CHECK_ROWS} allowed")
        key = public_key_from_wire(header.key, self._table) if header.HasField("key") else None
        call.note(space=request.space, encoder=request.encoder.fingerprint, rows=request.rows)
        space = await asyncio.to_thread(self._silo.space, request.space)
        asked = (call.identity, request.encoder, request.public_set, request.rows, header.check_rows)
        release = await asyncio.to_thread(partial(space.release, *asked))
        session, result = None, None
        if header.HasField("session"):
            session, result = await self._resumed(space, header, release, key)
        if result is not None:
            offer = AlignmentOffer(result.session, result.plan, result.plan.counts[1])
            yield self._offer(offer, header.alignment)
        else:
            if session is None:
                session = await self._alignments.begin(space, request, release, key)
            async for reply in self._summed(session, header.alignment, requests):
                yield reply
            result = session.result
        if result is not None:
            _record(call, "encrypted", request)
            async for reply in self._sent(space, result, header.parts_received, requests):
                yield reply

    async def RegisterMap(  # type: ignore[override]  # noqa: N802
        self, request: pb.RegisterMapRequest, call: Call
    ) -> pb.RegisterMapReply:
        """Takes what a client says about the map that it applies."""
        encoder = digest(request.encoder, "encoder's fingerprint")
        public_set = digest(request.public_set, "public set")
        call.note(space=request.space[:80], encoder=encoder)
        space = await asyncio.to_thread(self._silo.space, request.space)
        call.record("registration", space=space.name, encoder=encoder, public_set=public_set)

        def register() -> str:
            covariances = covariances_from_wire(request, space.store.encoder.dimension)
            return space.register(call.identity, encoder, public_set, covariances)

        with call.stage("learn"):
            name = await self._silo.heavy.do(call.identity, register)
        call.note(registration=name)
        return pb.RegisterMapReply(registration=name)

    async def SharedExamples(  # type: ignore[override]  # noqa: N802
        self, request: pb.SharedExamplesRequest, call: Call
    ) -> pb.SharedExamplesReply:
        """Unlabelled texts of a task, to join a public set."""
        public_set = digest(request.public_set, "public set")
        asked = (request.space, request.task, public_set)
        with self._bench.admitted(Share.LOOKUP, call.identity, call.remaining) as room:
            texts = await room.do(partial(self._silo.shared_examples, *asked))
        call.note(task=request.task, examples=len(texts))
        call.record("examples", task=request.task, examples=len(texts))
        return pb.SharedExamplesReply(texts=texts)

    async def _resumed(
        self, space: Space, header: pb.AlignEncryptedHeader, release: Release, key: PublicKey | None
    ) -> tuple[EncryptedSession | None, Undelivered | None]:
        """Return the sums that a client comes back to, or the result; neither for one that can begin anew.

        Raises:
            UnknownSessionError: there is neither, and the client has no key or has parts of the result.
        """
        # The sums before the files: a result is in its file before its session ends.
        session = self._alignments.find(header.session, release)
        if session is not None:
            if key is not None:
                session.alignment.use_key(key)
            return session, None
        try:
            return None, await asyncio.to_thread(self._alignments.undelivered, space, header.session, release)
        except UnknownSessionError:
            if key is None or header.parts_received:
                raise
            return None, None  # the sums are another replica's, or lost

    async def _summed(self, session: EncryptedSession, asked: pb.AlignmentHeader, requests: Requests) -> Replies:
        """Offer, and word of each block; then the session has its result, which is in a file."""
        alignment = session.alignment
        attachment = self._alignments.attach(session)
        done = False
        try:
            # A call that had the session may be adding a block still.
            offer = await session.exclusively(attachment, session.offer)
            yield self._offer(offer, asked)
            while alignment.next_block < alignment.blocks:
                block = (await _next(requests, "block")).block
                await session.exclusively(attachment, partial(_add, session, block))
                yield pb.AlignEncryptedReply(taken=pb.BlocksTaken(next_block=alignment.next_block))
            await session.exclusively(attachment, session.finish)
            done = True
        except InvalidInputError:
            done = True  # there is nothing to come back to
            raise
        finally:
            # A client that asked for a plan, to make its key, comes back to any replica.
            self._alignments.detach(session, attachment, done=done or alignment.key_id is None)

    async def _sent(self, space: Space, result: Undelivered, received: int, requests: Requests) -> Replies:
        """The parts that the client lacks. Until it says that it has everything, it may come back for them."""
        await asyncio.to_thread(self._alignments.record, space, result)
        for part in result.parts[received:]:
            yield pb.AlignEncryptedReply(product=part_to_wire(part))
        await _next(requests, "received")
        space.store.undelivered.remove(result)

    def _offer(self, offer: AlignmentOffer, asked: pb.AlignmentHeader) -> pb.AlignEncryptedReply:
        message = offer_to_wire(offer)
        sign_card(message, asked, self._keys)
        return pb.AlignEncryptedReply(offer=message)

    def _too_slow(self) -> SealignError:
        return UnavailableError(
            f"the alignment took more than {self._seconds:.0f} s (--alignment-seconds); embed the public texts first, "
            "then send them without pauses"
        )


def _record(call: Call, mode: str, request: AlignmentRequest) -> None:
    """Record an alignment, before its map or its result leaves."""
    call.record(
        "alignment",
        mode=mode,
        space=request.space,
        encoder=request.encoder.fingerprint,
        dimension=request.encoder.dimension,
        public_set=request.public_set,
    )


def _add(session: EncryptedSession, block: pb.InnerBlock) -> None:
    session.alignment.add(block.index, matrix_from_wire(block.rows, session.alignment.plan.counts[0]))


async def _next(requests: Requests, part: str) -> pb.AlignEncryptedRequest:
    """Return the next request, which must be of this kind."""
    request = await anext(requests, None)
    if request is None:  # also how a broken connection looks
        raise UnavailableError("the stream ended before the alignment did; come back to resume it")
    if request.WhichOneof("part") != part:
        raise InvalidInputError(
            f"an encrypted alignment is a header, the plan's inner blocks, and word that the product has come, in "
            f"this order; here {part!r} was expected"
        )
    return request
