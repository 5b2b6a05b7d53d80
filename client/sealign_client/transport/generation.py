"""Calls of the service ``Generation``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sealign.ckks import PackingPlan
from sealign.errors import InvalidInputError
from sealign.protocol import GenerationCard, RowKind
from sealign.protocol.conversions.generation import generation_from_wire
from sealign.protocol.conversions.types import product_from_wire, rows_to_wire
from sealign.protocol.v1 import generation_pb2 as pb
from sealign.protocol.v1.generation_pb2_grpc import GenerationStub
from sealign_client.transport.connection import LONG_SECONDS, SiloConnection
from sealign_client.transport.queries import Query, Reply, wire_fields


class GenerationCalls:
    """Calls over one connection."""

    def __init__(self, connection: SiloConnection) -> None:
        self._connection = connection
        self._stub = GenerationStub(connection.channel)

    async def task(self, name: str, rows: RowKind | None) -> GenerationCard:
        """Return a task's card, with the plan for one kind of rows, or without; waits while a vocabulary is encoded."""
        request = pb.DescribeGenerationRequest(task=name, rows=None if rows is None else rows_to_wire(rows))
        reply = await self._connection.call(self._stub.DescribeGeneration(request, timeout=LONG_SECONDS))
        await self._connection.signed(reply, request.rows, LONG_SECONDS)
        return generation_from_wire(reply, self._connection.table)

    async def tokenizer(self, card: GenerationCard) -> bytes:
        """Return the content of a task's tokenizer.

        Raises:
            InvalidInputError: the silo sends more than its card announces.
        """
        content = bytearray()
        call = self._stub.FetchTokenizer(pb.FetchTokenizerRequest(task=card.name), timeout=LONG_SECONDS)
        try:
            with self._connection.errors():
                async for piece in call:
                    content += piece.content
                    if len(content) > card.tokenizer_bytes:
                        raise InvalidInputError(
                            f"The silo's tokenizer is larger than the {card.tokenizer_bytes} bytes that its card "
                            "announces. Nothing was encrypted."
                        )
        finally:
            call.cancel()
        return bytes(content)

    async def next_token(self, query: Query, plan: PackingPlan, timeout: float) -> AsyncIterator[Reply]:
        """Yield the encrypted logits of the vocabulary, in parts."""
        call = self._stub.NextToken(pb.NextTokenRequest(**wire_fields(query)), timeout=timeout)
        try:
            with self._connection.errors():
                async for part in call:
                    product = product_from_wire(part.logits, plan.counts[2])
                    yield Reply(product, part.first_block, part.server_micros / 1e3)
        finally:
            call.cancel()
