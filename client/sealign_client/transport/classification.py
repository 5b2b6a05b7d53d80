"""Calls of the service ``Classification``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import grpc

from sealign.app.frame import REQUEST_ID
from sealign.ckks import PackingPlan
from sealign.errors import SealignError, UnavailableError
from sealign.protocol import RowKind, TaskCard
from sealign.protocol.conversions.checks import MAX_NAME, bounded_count
from sealign.protocol.conversions.classification import task_from_wire
from sealign.protocol.conversions.types import product_from_wire, rows_to_wire
from sealign.protocol.v1 import classification_pb2 as pb
from sealign.protocol.v1.classification_pb2_grpc import ClassificationStub
from sealign_client.transport.connection import SiloConnection
from sealign_client.transport.queries import Query, Reply, wire_fields


@dataclass(frozen=True)
class Listing:
    """Tasks of a silo.

    Attributes:
        cards: those that this client can use.
        faults: what is wrong with the others, by name.
    """

    cards: tuple[TaskCard, ...]
    faults: Mapping[str, SealignError]


class ClassificationCalls:
    """Calls over one connection."""

    def __init__(self, connection: SiloConnection) -> None:
        self._connection = connection
        self._stub = ClassificationStub(connection.channel)

    async def tasks(self, rows: RowKind | None, timeout: float, task: str | None = None) -> Listing:
        """Return the tasks, with the plans for one kind of rows, or without plans; or one task, if it is named.

        Raises:
            UntrustedCardError: a card is not signed by the silo's key.
        """
        request = pb.DescribeTasksRequest(rows=None if rows is None else rows_to_wire(rows), task=task)
        reply = await self._connection.call(self._stub.DescribeTasks(request, timeout=timeout))
        bounded_count(reply.tasks, "tasks")
        cards, faults = list[TaskCard](), dict[str, SealignError]()
        for card in reply.tasks:
            await self._connection.signed(card, request.rows, timeout)
            try:
                cards.append(task_from_wire(card, self._connection.table))
            except SealignError as error:
                faults[card.name[:MAX_NAME]] = error
        return Listing(tuple(cards), faults)

    async def classify(
        self, query: Query, plan: PackingPlan, timeout: float, request_id: str | None = None
    ) -> AsyncIterator[Reply]:
        """Yield the one reply to a query, which the silo records under ``request_id`` if there is one."""
        request = pb.ClassifyRequest(**wire_fields(query))
        metadata = None if request_id is None else ((REQUEST_ID, request_id),)
        yield _reply(
            await self._connection.call(self._stub.Classify(request, timeout=timeout, metadata=metadata)), plan
        )

    async def classify_stream(
        self, queries: AsyncIterator[Query], plan: PackingPlan, timeout: float
    ) -> AsyncIterator[Reply]:
        """Yield the replies to a stream of queries, in their order.

        Args:
            queries: taken one after the other, each when the one before has been sent.
            plan: of all of them.
            timeout: seconds without a reply to a query that was sent.
        """
        call = self._stub.ClassifyStream()
        flow = _Flow()

        async def write() -> None:
            try:
                try:
                    async for query in queries:
                        await call.write(pb.ClassifyRequest(**wire_fields(query)))
                        flow.sent()
                finally:
                    await call.done_writing()  # if encrypting failed too, or reading would never end
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # the call has ended; reading tells why

        writer = asyncio.create_task(write())
        try:
            with self._connection.errors():
                while True:
                    reading: asyncio.Future[Any] = asyncio.ensure_future(call.read())
                    while not reading.done():
                        await asyncio.wait({reading}, timeout=max(0.0, flow.deadline(timeout) - monotonic()))
                        if not reading.done() and flow.deadline(timeout) <= monotonic():
                            reading.cancel()
                            raise UnavailableError(f"{self._connection.peer} did not answer within {timeout:g} s.")
                    if (message := reading.result()) is grpc.aio.EOF:
                        break
                    flow.received()
                    yield _reply(message, plan)
            await writer  # what failed on this side, if anything
        finally:
            call.cancel()
            writer.cancel()


class _Flow:
    """Requests of a stream that wait for their reply, and since when."""

    def __init__(self) -> None:
        self._waiting = 0
        self._since = monotonic()

    def sent(self) -> None:
        if not self._waiting:
            self._since = monotonic()
        self._waiting += 1

    def received(self) -> None:
        self._waiting -= 1
        self._since = monotonic()

    def deadline(self, timeout: float) -> float:
        """Return when to give up: a whole timeout from now while nothing waits, as this side takes its time."""
        return (self._since if self._waiting > 0 else monotonic()) + timeout


def _reply(message: pb.ClassifyReply, plan: PackingPlan) -> Reply:
    product = product_from_wire(message.logits, plan.counts[0] * plan.counts[2])
    return Reply(product, 0, message.server_micros / 1e3)
