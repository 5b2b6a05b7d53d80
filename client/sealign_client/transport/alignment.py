"""Calls of the service ``Alignment``, for any space."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import numpy as np
from numpy.typing import NDArray

from sealign.alignment import MapCovariances
from sealign.ckks import EncryptedMatrix, PublicKey
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, SealignError
from sealign.protocol import AlignmentOffer, AlignmentRequest, CrossCovariancePart, MapCard, SpaceCard
from sealign.protocol.conversions.alignment import (
    covariances_to_wire,
    examples_from_wire,
    offer_from_wire,
    part_from_wire,
    request_to_wire,
    space_from_wire,
)
from sealign.protocol.conversions.types import map_from_wire, matrix_to_wire, public_key_to_wire
from sealign.protocol.v1 import alignment_pb2 as pb
from sealign.protocol.v1.alignment_pb2_grpc import AlignmentStub
from sealign_client.transport.connection import LONG_SECONDS, SiloConnection

AlignmentReply: TypeAlias = AlignmentOffer | CrossCovariancePart | int
"""The silo's offer, a part of the product, or the number of inner blocks that are summed."""

Blocks: TypeAlias = Callable[[AlignmentOffer], AsyncIterator[tuple[int, EncryptedMatrix]]]
"""Gives the inner blocks that an offer asks for, with their numbers."""


@dataclass(frozen=True)
class EncryptedRequest:
    """How an encrypted alignment begins or resumes.

    Attributes:
        alignment: what it is about.
        key: of this alignment alone; None to see the silo's offer first, whose parameter set decides.
        check_rows: combinations of the client's rows hidden among them.
        session: of the alignment to resume; None to begin.
        parts_received: parts of the product that the client has.
    """

    alignment: AlignmentRequest
    key: PublicKey | None
    check_rows: int
    session: bytes | None
    parts_received: int


class AlignmentCalls:
    """Calls over one connection."""

    def __init__(self, connection: SiloConnection) -> None:
        self._connection = connection
        self._stub = AlignmentStub(connection.channel)

    async def space(self, name: str, encoder: EncoderCard | None, timeout: float) -> SpaceCard:
        """Return the card of a space, with the maps and releases for an encoder, or with the maps of all encoders."""
        request = pb.DescribeSpaceRequest(
            space=name,
            encoder=None if encoder is None else encoder.fingerprint,
            dimension=None if encoder is None else encoder.dimension,
        )
        reply = await self._connection.call(self._stub.DescribeSpace(request, timeout=timeout))
        return space_from_wire(await self._connection.signed(reply, request, timeout))

    async def align(self, request: AlignmentRequest, chunks: Iterable[NDArray[np.floating]]) -> MapCard:
        """Stream the client's rows of a public set; the silo learns the map."""

        header = request_to_wire(request)

        def requests() -> Iterator[pb.AlignRequest]:
            yield pb.AlignRequest(header=header)
            for chunk in chunks:
                values = np.ascontiguousarray(chunk, dtype="<f4").tobytes()
                yield pb.AlignRequest(rows=pb.EmbeddingRows(values=values))

        reply = await self._connection.call(self._stub.Align(requests(), timeout=LONG_SECONDS))
        return map_from_wire((await self._connection.signed(reply, header, LONG_SECONDS)).map)

    async def register_map(
        self, space: str, encoder: str, public_set: str, covariances: MapCovariances, timeout: float
    ) -> str:
        """Register what a map that the client applies makes of the public texts; return what the silo calls it."""
        request = covariances_to_wire(covariances, space, encoder, public_set)
        return (await self._connection.call(self._stub.RegisterMap(request, timeout=timeout))).registration

    async def shared_examples(self, space: str, task: str, public_set: str, timeout: float) -> tuple[str, ...]:
        """Return unlabelled texts of a task; from now on the silo holds the public set that they join, too."""
        request = pb.SharedExamplesRequest(space=space, task=task, public_set=public_set)
        return examples_from_wire(await self._connection.call(self._stub.SharedExamples(request, timeout=timeout)))

    async def align_encrypted(self, request: EncryptedRequest, blocks: Blocks) -> AsyncGenerator[AlignmentReply, None]:
        """Begin or resume an encrypted alignment, and yield what the silo answers.

        The silo hears that the last part has come when the caller asks for what follows it.
        """
        call = self._stub.AlignEncrypted()

        async def write(message: pb.AlignEncryptedRequest) -> None:
            # If the call has ended, reading tells why.
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(message)

        async def write_blocks(offer: AlignmentOffer) -> None:
            async for index, matrix in blocks(offer):
                await write(pb.AlignEncryptedRequest(block=pb.InnerBlock(index=index, rows=matrix_to_wire(matrix))))

        writer: asyncio.Task[None] | None = None
        try:
            await write(pb.AlignEncryptedRequest(header=_header(request)))
            with self._connection.errors():
                async for reply in self._replies(call, request_to_wire(request.alignment)):
                    yield reply
                    if isinstance(reply, AlignmentOffer):
                        parts = reply.plan.counts[0]
                        writer = asyncio.create_task(write_blocks(reply))
                        writer.add_done_callback(lambda task: _end_if_failed(call, task))
                    elif isinstance(reply, CrossCovariancePart) and reply.index == parts - 1:
                        await write(pb.AlignEncryptedRequest(received=pb.ProductReceived()))
        except (SealignError, asyncio.CancelledError):
            if writer is not None and writer.done() and not writer.cancelled():
                writer.result()  # what failed on this side, if anything, is why the call has ended
            raise
        finally:
            call.cancel()
            if writer is not None:
                writer.cancel()

    async def _replies(self, call: Any, asked: pb.AlignmentHeader) -> AsyncIterator[AlignmentReply]:
        """Yield a call's replies, checked; the first one is an offer."""
        offer: AlignmentOffer | None = None
        async for message in call:
            part = message.WhichOneof("part")
            if part == "offer" and offer is None:
                await self._connection.signed(message.offer, asked, LONG_SECONDS)
                offer = offer_from_wire(message.offer, self._connection.table)
                yield offer
            elif part == "taken" and offer is not None:
                yield min(message.taken.next_block, offer.plan.counts[1])
            elif part == "product" and offer is not None:
                yield part_from_wire(message.product, offer.plan)
            else:
                raise InvalidInputError(
                    "The silo answers an encrypted alignment out of order; it runs an incompatible or faulty version. "
                    "No map was made."
                )


def _header(request: EncryptedRequest) -> pb.AlignEncryptedHeader:
    return pb.AlignEncryptedHeader(
        alignment=request_to_wire(request.alignment),
        key=None if request.key is None else public_key_to_wire(request.key),
        check_rows=request.check_rows,
        session=request.session,
        parts_received=request.parts_received,
    )


def _end_if_failed(call: Any, writer: asyncio.Task[None]) -> None:
    """End a call whose requests could not be made, rather than wait for replies to them."""
    if not writer.cancelled() and writer.exception() is not None:
        call.cancel()
