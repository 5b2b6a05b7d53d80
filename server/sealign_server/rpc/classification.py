"""The Classification service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter

from sealign.app.frame import Call
from sealign.ckks import Evaluator, ZeroPool
from sealign.errors import StalePlanError
from sealign.protocol import RowKind
from sealign.protocol.conversions.classification import task_to_wire
from sealign.protocol.conversions.types import matrix_from_wire, product_to_wire, rows_from_wire
from sealign.protocol.signing import sign_card
from sealign.protocol.v1 import classification_pb2 as pb
from sealign.protocol.v1 import types_pb2
from sealign.protocol.v1.classification_pb2_grpc import ClassificationServicer
from sealign_server.access import Policies
from sealign_server.rpc.queries import Queries, rows_in
from sealign_server.serving import Silo
from sealign_server.store import SigningKeys

_PATIENCE = 2.0
"""Seconds that a description of all tasks waits for heads of large ones."""
_PATIENCE_FOR_ONE = 10.0
"""Seconds that the description of one large task waits for its head."""


class ClassificationHandlers(ClassificationServicer):
    """Encrypted logits of the silo's classifiers."""

    def __init__(self, silo: Silo, queries: Queries, policies: Policies, keys: SigningKeys) -> None:
        self._silo = silo
        self._keys = keys
        self._queries = queries
        self._policies = policies

    async def DescribeTasks(  # type: ignore[override]  # noqa: N802
        self, request: pb.DescribeTasksRequest, call: Call
    ) -> pb.DescribeTasksReply:
        """Tasks, and plans for one kind of rows."""
        tier, known = self._policies.current.tier_of(call.identity), self._silo.classification
        one = request.task if request.HasField("task") else None
        if one is not None:
            known.require(one)
        names = {one} if one is not None else set(filter(tier.allows_task, known.names()))
        with self._queries.looking_up(call) as room:
            if request.HasField("rows"):
                patience = _PATIENCE if one is None else _PATIENCE_FOR_ONE
                if call.remaining is not None:
                    patience = min(patience, call.remaining / 2)
                classification = self._silo.classification_at(tier.precision)
                cards = await classification.describe(call.identity, rows_from_wire(request.rows), names, patience)
            else:
                cards = [card for card in await room.do(known.cards) if card.name in names]
        reply = pb.DescribeTasksReply(tasks=map(task_to_wire, cards))
        for card in reply.tasks:
            sign_card(card, request.rows, self._keys)
        return reply

    async def Classify(self, request: pb.ClassifyRequest, call: Call) -> pb.ClassifyReply:  # type: ignore[override]  # noqa: N802
        """Encrypted logits of one batch."""
        return await self._classify(request, call)

    async def ClassifyStream(  # type: ignore[override]  # noqa: N802
        self, requests: AsyncIterator[pb.ClassifyRequest], call: Call
    ) -> AsyncIterator[pb.ClassifyReply]:
        """Encrypted logits of each batch, in order."""
        async for request in requests:
            yield await self._classify(request, call)

    async def _classify(self, request: pb.ClassifyRequest, call: Call) -> pb.ClassifyReply:
        started = perf_counter()
        rows = rows_from_wire(request.rows)
        evaluator = await self._evaluator(request, rows, call)
        count = rows_in(evaluator.plan, request.query)
        zeros = self._queries.zeros(call, request)
        call.note(task=request.task, encoder=rows.encoder, rows=count + int(call.facts.get("rows", 0)))
        with self._queries.admitted(call, evaluator.plan, count) as room:
            await self._queries.count(call, request.task, rows, count)
            logits = await self._queries.compute(call, room, lambda: _product(evaluator, request.query, zeros))
        return pb.ClassifyReply(logits=logits, server_micros=round((perf_counter() - started) * 1e6))

    async def _evaluator(self, request: pb.ClassifyRequest, rows: RowKind, call: Call) -> Evaluator:
        asked = (call.identity, request.task, rows, request.query.plan, request.revision)
        classification = self._silo.classification_at(self._policies.current.tier_of(call.identity).precision)
        try:
            return classification.evaluator(*asked)
        except StalePlanError:
            # The client may have described the task at a worker that knows more.
            with self._queries.looking_up(call):
                await classification.catch_up(call.identity, request.task, rows)
            return classification.evaluator(*asked)


def _product(evaluator: Evaluator, query: types_pb2.EncryptedMatrix, zeros: ZeroPool) -> types_pb2.EncryptedProduct:
    row_blocks, inner_blocks, _ = evaluator.plan.counts
    return product_to_wire(evaluator.evaluate(matrix_from_wire(query, row_blocks * inner_blocks), zeros))
