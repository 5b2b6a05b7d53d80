"""The gRPC service of generation: what crosses the wire to and from `GenerationTasks`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

from sealign.errors import NoPlanError
from sealign.protocol import GenerationCard, MapCard
from sealign.protocol.conversions import encoder_from_wire, matrix_from_wire, product_to_wire
from sealign.protocol.generation import generation_to_wire
from sealign.protocol.status import answering
from sealign.protocol.v1 import generation_pb2 as pb
from sealign.protocol.v1 import silo_pb2
from sealign.protocol.v1.generation_pb2_grpc import GenerationServicer
from sealign_server.admission import Admission
from sealign_server.callers import caller, within
from sealign_server.encrypted_service import EncryptedAlignments
from sealign_server.generation import GenerationTask, GenerationTasks
from sealign_server.plain_service import Described, PlainAlignments
from sealign_server.public_keys import PublicKeyCache
from sealign_server.state_alignment import StateAlignment

_PIECE_BYTES = 1 << 20


class GenerationService(GenerationServicer):
    """Answers clients that generate text. Every error leaves as one status with one message.

    Args:
        tasks: what is served.
        keys: the clients' public keys.
        max_concurrent: products under way at once; more are refused, not queued.
        alignment_seconds: how long an alignment waits for its client.
    """

    def __init__(
        self, tasks: GenerationTasks, keys: PublicKeyCache, max_concurrent: int, alignment_seconds: float
    ) -> None:
        self._tasks = tasks
        self._keys = keys
        self._products = Admission(max_concurrent)
        self._alignments = PlainAlignments(self._begun, alignment_seconds)
        self._alignment_seconds = alignment_seconds
        self._encrypted: dict[str, EncryptedAlignments] = {}

    async def DescribeGeneration(  # noqa: N802
        self, request: pb.DescribeGenerationRequest, context: Any
    ) -> pb.DescribeGenerationReply:
        """The generation tasks, with plans for a model."""
        async with answering(context, "DescribeGeneration"):
            cards = await asyncio.to_thread(self._described, request, caller(context))
            return pb.DescribeGenerationReply(tasks=map(generation_to_wire, cards))

    async def FetchTokenizer(  # noqa: N802
        self, request: pb.FetchTokenizerRequest, context: Any
    ) -> AsyncIterator[pb.TokenizerPiece]:
        """A task's tokenizer, in pieces."""
        async with answering(context, "FetchTokenizer"):
            content = await asyncio.to_thread(self._tasks.tokenizer, request.task)
            for start in range(0, len(content), _PIECE_BYTES):
                yield pb.TokenizerPiece(content=content[start : start + _PIECE_BYTES])

    async def AlignStates(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.AlignStatesRequest], context: Any
    ) -> silo_pb2.AlignReply:
        """Learns and keeps the map of a model from its states over a public set."""
        async with answering(context, "AlignStates"):
            return await self._alignments.answer(request_iterator)

    async def AlignStatesEncrypted(  # noqa: N802
        self, request_iterator: AsyncIterator[silo_pb2.EncryptedAlignRequest], context: Any
    ) -> AsyncIterator[silo_pb2.EncryptedAlignReply]:
        """Answers encrypted states of a public set with an encrypted cross-covariance."""
        async with answering(context, "AlignStatesEncrypted"):
            requests = within(request_iterator, self._alignment_seconds)
            first = await anext(requests, silo_pb2.EncryptedAlignRequest())
            alignments = await asyncio.to_thread(self._encrypted_alignments, first.header.task)
            async for reply in alignments.answer(_preceded(first, requests), caller(context)):
                yield reply

    async def NextToken(  # noqa: N802
        self, request: pb.NextTokenRequest, context: Any
    ) -> AsyncIterator[pb.NextTokenPart]:
        """Encrypted logits of the vocabulary, part by part."""
        async with answering(context, "NextToken"):
            started = perf_counter()
            zeros = self._keys.pool(request.query.key_id)
            task = await asyncio.to_thread(self._tasks.task, request.task)
            evaluator = await asyncio.to_thread(
                task.evaluator, request.model, request.query.plan, request.revision, request.mapped_over
            )
            with self._products.admitted():
                parts = evaluator.evaluate_parts(matrix_from_wire(request.query), zeros)
                first_block = 0
                # In a thread, so that short queries and other clients need not wait.
                while (part := await asyncio.to_thread(next, parts, None)) is not None:
                    micros = round((perf_counter() - started) * 1e6)
                    yield pb.NextTokenPart(first_block=first_block, logits=product_to_wire(part), server_micros=micros)
                    first_block += len(part.ciphertexts)

    def _described(self, request: pb.DescribeGenerationRequest, client: str) -> list[GenerationCard]:
        cards = []
        for task in self._tasks.all():
            mapped_over = request.mapped_over if request.mapped_over in _digests(task.states.public_sets()) else ""
            card = task.describe("" if request.mapped_over and not mapped_over else request.model, mapped_over)
            if request.model:
                counted = task.releases.counted(card.public_sets, request.model, request.dimension, client)
                card = replace(card, public_sets=counted)
            cards.append(card)
        return cards

    def _begun(self, header: pb.AlignStatesHeader) -> tuple[StateAlignment, Described]:
        task = self._tasks.task(header.task)
        session = task.alignment(encoder_from_wire(header.model), header.public_set, header.rows)
        return session, partial(_learned, task)

    def _encrypted_alignments(self, name: str) -> EncryptedAlignments:
        task = self._tasks.task(name)
        if name not in self._encrypted:
            self._encrypted[name] = EncryptedAlignments(task, self._keys, self._alignment_seconds)
        return self._encrypted[name]


def _learned(task: GenerationTask, model: str) -> MapCard | None:
    """The card of a model's new map.

    Raises:
        NoPlanError: nothing can serve the task behind it.
    """
    card = task.describe(model)
    if card.unservable:
        raise NoPlanError(
            f"the map was learned, but no parameter set can hold the logits of generation task {card.name} behind it; "
            "the silo's operator can tell from its log what to change"
        )
    return card.map


async def _preceded(
    first: silo_pb2.EncryptedAlignRequest, rest: AsyncIterator[silo_pb2.EncryptedAlignRequest]
) -> AsyncIterator[silo_pb2.EncryptedAlignRequest]:
    yield first
    async for request in rest:
        yield request


def _digests(public_sets: list[Any]) -> set[str]:
    return {public.digest for public in public_sets}
