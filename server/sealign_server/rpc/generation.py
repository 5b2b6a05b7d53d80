"""The Generation service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from time import perf_counter

from sealign.app.frame import Call
from sealign.ckks import VocabularyEvaluator
from sealign.errors import StalePlanError
from sealign.protocol import RowKind
from sealign.protocol.conversions.generation import generation_to_wire
from sealign.protocol.conversions.types import matrix_from_wire, product_to_wire, rows_from_wire
from sealign.protocol.signing import sign_card
from sealign.protocol.v1 import generation_pb2 as pb
from sealign.protocol.v1.generation_pb2_grpc import GenerationServicer
from sealign_server.access import Policies
from sealign_server.rpc.queries import Queries, rows_in
from sealign_server.serving import Generation, Silo
from sealign_server.store import SigningKeys

_PIECE_BYTES = 1 << 20


class GenerationHandlers(GenerationServicer):
    """Encrypted logits of the next token."""

    def __init__(self, silo: Silo, queries: Queries, policies: Policies, keys: SigningKeys) -> None:
        self._silo = silo
        self._keys = keys
        self._queries = queries
        self._policies = policies

    async def DescribeGeneration(  # type: ignore[override]  # noqa: N802
        self, request: pb.DescribeGenerationRequest, call: Call
    ) -> pb.GenerationCard:
        """A task, and the plan for one kind of rows."""
        rows = rows_from_wire(request.rows) if request.HasField("rows") else None
        with self._queries.looking_up(call):
            card = generation_to_wire(await self._generation(call).describe(call.identity, request.task, rows))
        sign_card(card, request.rows, self._keys)
        return card

    async def FetchTokenizer(  # type: ignore[override]  # noqa: N802
        self, request: pb.FetchTokenizerRequest, call: Call
    ) -> AsyncIterator[pb.TokenizerPiece]:
        """A task's tokenizer, in pieces."""
        with self._queries.looking_up(call) as room:
            content = await room.do(partial(self._silo.generation.tokenizer, request.task))
        for start in range(0, len(content), _PIECE_BYTES):
            yield pb.TokenizerPiece(content=content[start : start + _PIECE_BYTES])

    async def NextToken(  # type: ignore[override]  # noqa: N802
        self, request: pb.NextTokenRequest, call: Call
    ) -> AsyncIterator[pb.NextTokenPart]:
        """Encrypted logits of the vocabulary, part by part; no room is held while the client reads."""
        started = perf_counter()
        rows = rows_from_wire(request.rows)
        evaluator = await self._evaluator(request, rows, call)
        plan, first_block = evaluator.plan, 0
        rows_in(plan, request.query)
        zeros = self._queries.zeros(call, request)
        call.note(task=request.task, encoder=rows.encoder, rows=1)
        with self._queries.admitted(call, plan, 1) as room:
            await self._queries.count(call, f"generation/{request.task}", rows, 1)
            query = matrix_from_wire(request.query, plan.counts[1])
            parts = evaluator.evaluate_parts(query, zeros)
            part = await self._queries.compute(call, room, partial(next, parts, None))
        while part is not None:
            micros = round((perf_counter() - started) * 1e6)
            yield pb.NextTokenPart(first_block=first_block, logits=product_to_wire(part), server_micros=micros)
            first_block += len(part.ciphertexts)
            with self._queries.continued(call) as room:
                part = await self._queries.compute(call, room, partial(next, parts, None))

    def _generation(self, call: Call) -> Generation:
        return self._silo.generation_at(self._policies.current.tier_of(call.identity).generation_precision)

    async def _evaluator(self, request: pb.NextTokenRequest, rows: RowKind, call: Call) -> VocabularyEvaluator:
        asked = (call.identity, request.task, rows, request.query.plan, request.revision)
        generation = self._generation(call)
        try:
            return generation.evaluator(*asked)
        except StalePlanError:
            # The client may have described the task at a worker that knows more.
            with self._queries.looking_up(call):
                await generation.catch_up(call.identity, request.task, rows)
            return generation.evaluator(*asked)
