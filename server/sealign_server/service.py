"""The gRPC service: what crosses the wire to and from a `Silo`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from time import perf_counter
from typing import Any

import structlog

from sealign.ckks import SecurityTable
from sealign.errors import NoMapError, NotFoundError, StalePlanError
from sealign.protocol import QueryRows, SiloCard
from sealign.protocol.conversions import (
    covariances_from_wire,
    encoder_from_wire,
    matrix_from_wire,
    product_to_wire,
    public_key_from_wire,
    query_rows_from_wire,
    silo_to_wire,
)
from sealign.protocol.status import answering
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloServicer
from sealign_server.admission import Admission
from sealign_server.alignment import AlignmentSession
from sealign_server.callers import caller
from sealign_server.encrypted_service import EncryptedAlignments
from sealign_server.plain_service import Described, PlainAlignments
from sealign_server.public_keys import PublicKeyCache
from sealign_server.silo import Silo

_log = structlog.get_logger()

_INLINE_MS = 5.0
"""Products predicted to take longer run in a thread, so that short queries need not wait for them."""


class SiloService(SiloServicer):
    """Answers clients. Every error leaves as one status with one message.

    Args:
        silo: what is served.
        keys: the clients' public keys.
        table: security table that keys and plans must satisfy.
        max_concurrent: products under way at once; more are refused, not queued.
        alignment_seconds: how long an alignment waits for its client.
    """

    def __init__(
        self,
        silo: Silo,
        keys: PublicKeyCache,
        table: SecurityTable,
        max_concurrent: int,
        alignment_seconds: float = 120.0,
    ) -> None:
        self._silo = silo
        self._keys = keys
        self._table = table
        self._products = Admission(max_concurrent)
        self._alignments = PlainAlignments(self._begun, alignment_seconds)
        self._encrypted_alignments = EncryptedAlignments(silo, keys, alignment_seconds)

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.SiloCard:  # noqa: N802
        """Tasks, public sets and plans for an encoder."""
        async with answering(context, "Describe"):
            return silo_to_wire(await asyncio.to_thread(self._described, request, caller(context)))

    async def RegisterKey(self, request: pb.RegisterKeyRequest, context: Any) -> pb.RegisterKeyReply:  # noqa: N802
        """Holds a public key under the hash of its content."""
        async with answering(context, "RegisterKey"):
            key = public_key_from_wire(request.key, self._table)
            return pb.RegisterKeyReply(key_id=self._keys.register(key))

    async def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyReply:  # noqa: N802
        """Encrypted logits of one batch."""
        async with answering(context, "Classify"):
            return await self._classify(request)

    async def ClassifyStream(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ClassifyRequest], context: Any
    ) -> AsyncIterator[pb.ClassifyReply]:
        """Encrypted logits of each batch, in order."""
        async with answering(context, "ClassifyStream"):
            async for request in request_iterator:
                yield await self._classify(request)

    async def Align(self, request_iterator: AsyncIterator[pb.AlignRequest], context: Any) -> pb.AlignReply:  # noqa: N802
        """Learns and keeps the map of an encoder from its embeddings of a public set."""
        async with answering(context, "Align"):
            return await self._alignments.answer(request_iterator)

    async def AlignEncrypted(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.EncryptedAlignRequest], context: Any
    ) -> AsyncIterator[pb.EncryptedAlignReply]:
        """Answers encrypted embeddings of a public set with an encrypted cross-covariance."""
        async with answering(context, "AlignEncrypted"):
            async for reply in self._encrypted_alignments.answer(request_iterator, caller(context)):
                yield reply

    async def RegisterMap(self, request: pb.RegisterMapRequest, context: Any) -> pb.RegisterMapReply:  # noqa: N802
        """Takes what a client tells about the map that it applies."""
        async with answering(context, "RegisterMap"):
            covariances = covariances_from_wire(request)
            name = await asyncio.to_thread(self._silo.register_map, request.mapped_over, covariances)
            _log.info("map told", client=caller(context), public_set=request.mapped_over[:12], map=name[:12])
            return pb.RegisterMapReply(map_id=name)

    async def ReleasedTexts(  # noqa: N802
        self, request: pb.ReleasedTextsRequest, context: Any
    ) -> pb.ReleasedTextsReply:
        """Unlabelled texts of a task, to join a public set."""
        async with answering(context, "ReleasedTexts"):
            texts = await asyncio.to_thread(self._silo.released_texts, request.task, request.public_set)
            _log.info("texts released", client=caller(context), task=request.task, count=len(texts))
            return pb.ReleasedTextsReply(texts=texts)

    def _described(self, request: pb.DescribeRequest, client: str) -> SiloCard:
        card = self._silo.describe(query_rows_from_wire(request))
        if not request.encoder:
            return card
        counted = self._silo.releases.counted(card.public_sets, request.encoder, request.dimension, client)
        return replace(card, public_sets=counted)

    def _begun(self, header: pb.AlignHeader) -> tuple[AlignmentSession, Described]:
        session = self._silo.alignment(encoder_from_wire(header.encoder), header.public_set, header.rows)
        return session, lambda encoder: self._silo.describe(QueryRows(encoder)).map

    async def _classify(self, request: pb.ClassifyRequest) -> pb.ClassifyReply:
        started = perf_counter()
        zeros = self._keys.pool(request.query.key_id)
        rows = query_rows_from_wire(request)
        asked = (request.task, rows, request.query.plan, request.revision)
        try:
            evaluator = self._silo.evaluator(*asked)
        except (NotFoundError, NoMapError, StalePlanError):
            # The client may have described the task at a worker that knows more.
            await asyncio.to_thread(self._silo.catch_up, rows)
            evaluator = self._silo.evaluator(*asked)
        with self._products.admitted():
            query = matrix_from_wire(request.query)
            if evaluator.plan.cost.server_ms > _INLINE_MS:
                product = await asyncio.to_thread(evaluator.evaluate, query, zeros)
            else:
                product = evaluator.evaluate(query, zeros)
        micros = round((perf_counter() - started) * 1e6)
        return pb.ClassifyReply(logits=product_to_wire(product), server_micros=micros)
