"""One TLS connection to a silo, speaking domain types and raising Sealign's errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from sealign.alignment import MapCovariances
from sealign.app.tls import load_authorities, load_identity
from sealign.ckks import EncryptedMatrix, EncryptedProduct, PublicKey, SecurityTable
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, SealignError
from sealign.protocol import AlignmentOffer, CrossCovariancePart, MapCard, QueryRows, SiloCard, TaskCard
from sealign.protocol.conversions import (
    alignment_reply_from_wire,
    covariances_to_wire,
    encoder_to_wire,
    map_from_wire,
    matrix_to_wire,
    product_from_wire,
    public_key_to_wire,
    silo_from_wire,
)
from sealign.protocol.status import error_of
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.generation_pb2_grpc import GenerationStub
from sealign.protocol.v1.silo_pb2_grpc import SiloStub
from sealign_client.settings import ClientSettings

_MAX_MESSAGE_BYTES = 32 << 20
ALIGN_SECONDS = 3600.0
_Reply = TypeVar("_Reply")


class SiloConnection:
    """Calls to one silo. Use inside a running event loop.

    Raises:
        InvalidInputError, AuthenticationError: certificate files that cannot work.
    """

    def __init__(self, settings: ClientSettings) -> None:
        if (settings.tls_cert is None) != (settings.tls_key is None):
            raise InvalidInputError("tls_cert and tls_key go together: give both or neither")
        authorities = None if settings.tls_ca is None else load_authorities(settings.tls_ca)
        identity = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            identity = load_identity(settings.tls_cert, settings.tls_key)
        credentials = grpc.ssl_channel_credentials(
            authorities, identity.key if identity else None, identity.certificate if identity else None
        )
        self._table: SecurityTable = settings.security_table
        self._timeout = settings.timeout
        self._peer = f"the silo at {settings.silo}"
        self._channel = grpc.aio.secure_channel(
            settings.silo,
            credentials,
            options=[
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.max_reconnect_backoff_ms", 2000),
                ("grpc.keepalive_time_ms", 20_000),  # a stream to a dead silo must end
                ("grpc.keepalive_timeout_ms", 10_000),
            ],
        )
        self._stub = SiloStub(self._channel)
        self._generation = GenerationStub(self._channel)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def describe(self, rows: QueryRows, dimension: int = 0) -> SiloCard:
        """What the silo offers for such rows of an encoder of this dimension."""
        request = pb.DescribeRequest(**vars(rows), dimension=dimension)
        reply = await self._call(self._stub.Describe(request, timeout=self._timeout))
        return silo_from_wire(reply, self._table)

    async def register(self, key: PublicKey) -> None:
        """Upload a public key."""
        request = pb.RegisterKeyRequest(key=public_key_to_wire(key))
        await self._call(self._stub.RegisterKey(request, timeout=self._timeout))

    async def register_map(self, public_set: str, covariances: MapCovariances) -> str:
        """Tell the silo about a map learned over a public set; the answer names what was told."""
        request = covariances_to_wire(covariances, public_set)
        return (await self._call(self._stub.RegisterMap(request, timeout=self._timeout))).map_id

    async def released_texts(self, task: str, public_set: str) -> tuple[str, ...]:
        """Unlabelled texts of a task; from now on the silo holds the public set that they join, too."""
        request = pb.ReleasedTextsRequest(task=task, public_set=public_set)
        return tuple((await self._call(self._stub.ReleasedTexts(request, timeout=self._timeout))).texts)

    async def align(
        self, encoder: EncoderCard, public_set: str, rows: int, chunks: Iterable[NDArray[np.float32]]
    ) -> MapCard:
        """Stream embeddings of a public set; the silo learns the map."""

        def requests() -> Iterator[pb.AlignRequest]:
            header = pb.AlignHeader(encoder=encoder_to_wire(encoder), public_set=public_set, rows=rows)
            yield pb.AlignRequest(header=header)
            for chunk in chunks:
                values = np.ascontiguousarray(chunk, dtype="<f4").tobytes()
                yield pb.AlignRequest(rows=pb.EmbeddingRows(values=values))

        reply = await self._call(self._stub.Align(requests(), timeout=ALIGN_SECONDS))
        return map_from_wire(reply.map)

    async def align_encrypted(
        self,
        encoder: EncoderCard,
        public_set: str,
        rows: int,
        session: bytes,
        parts_received: int,
        blocks: Callable[[AlignmentOffer], AsyncIterator[tuple[int, EncryptedMatrix]]],
        task: str = "",
    ) -> AsyncIterator[AlignmentOffer | CrossCovariancePart | int]:
        """Run an encrypted alignment, or go on with one, and yield what the silo says.

        Args:
            encoder: the client's encoder.
            public_set: digest of the public set.
            rows: number of its texts.
            session: name of the alignment to go on with; empty to begin.
            parts_received: parts of the product that the client has.
            blocks: gives the inner blocks that an offer asks for, with their numbers.
            task: a generation task, to align with its states; empty for the silo's own encoder.

        The silo hears that the last part has come when the caller asks for what follows it.
        """
        call = self._generation.AlignStatesEncrypted() if task else self._stub.AlignEncrypted()
        header = pb.EncryptedAlignHeader(
            encoder=encoder_to_wire(encoder),
            public_set=public_set,
            rows=rows,
            session=session,
            parts_received=parts_received,
            task=task,
        )

        async def write(request: pb.EncryptedAlignRequest) -> None:
            # If the call has ended, reading tells why.
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(request)

        async def write_blocks(offer: AlignmentOffer) -> None:
            async for index, matrix in blocks(offer):
                await write(pb.EncryptedAlignRequest(block=pb.InnerBlock(index=index, rows=matrix_to_wire(matrix))))

        writer: asyncio.Task[None] | None = None
        try:
            await write(pb.EncryptedAlignRequest(header=header))
            parts = 0
            with self._errors():
                async for message in call:
                    reply = alignment_reply_from_wire(message, self._table)
                    yield reply
                    if isinstance(reply, AlignmentOffer):
                        parts = reply.plan.counts[0]
                        writer = asyncio.create_task(write_blocks(reply))
                        writer.add_done_callback(partial(_end_if_failed, call))
                    elif isinstance(reply, CrossCovariancePart) and reply.index == parts - 1:
                        await write(pb.EncryptedAlignRequest(received=pb.ProductReceived()))
        except (SealignError, asyncio.CancelledError):
            if writer is not None and writer.done() and not writer.cancelled():
                writer.result()  # what failed on this side, if anything, is why the call has ended
            raise
        finally:
            call.cancel()
            if writer is not None:
                writer.cancel()

    async def classify(self, task: TaskCard, rows: QueryRows, query: EncryptedMatrix) -> tuple[EncryptedProduct, float]:
        """Encrypted outputs, and the milliseconds that the silo spent on the ciphertexts."""
        request = _classify_request(task, rows, query)
        reply = await self._call(self._stub.Classify(request, timeout=self._timeout))
        return product_from_wire(reply.logits), reply.server_micros / 1e3

    async def classify_stream(
        self, task: TaskCard, rows: QueryRows, queries: AsyncIterator[EncryptedMatrix]
    ) -> AsyncIterator[tuple[EncryptedProduct, float]]:
        """The same for a stream of queries; replies come in their order."""

        call = self._stub.ClassifyStream()

        async def write() -> None:
            try:
                try:
                    async for query in queries:
                        await call.write(_classify_request(task, rows, query))
                finally:
                    await call.done_writing()  # if encrypting failed too, or reading would never end
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # the call has ended; reading tells why

        writer = asyncio.create_task(write())
        try:
            with self._errors():
                async for reply in call:
                    yield product_from_wire(reply.logits), reply.server_micros / 1e3
            await writer  # what failed on this side, if anything
        finally:
            call.cancel()
            writer.cancel()

    async def _call(self, call: Awaitable[_Reply]) -> _Reply:
        with self._errors():
            return await call

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_of(error, self._peer) from None


def _classify_request(task: TaskCard, rows: QueryRows, query: EncryptedMatrix) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(task=task.name, query=matrix_to_wire(query), revision=task.revision, **vars(rows))


def _end_if_failed(call: Any, writer: asyncio.Task[None]) -> None:
    """End a call whose requests could not be made, rather than wait for replies to them."""
    if not writer.cancelled() and writer.exception() is not None:
        call.cancel()
