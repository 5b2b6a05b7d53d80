"""What encrypted queries have in common: the key, the count of rows, the room to compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeAlias, TypeVar

from sealign.app.frame import Call
from sealign.ckks import PackingPlan, SecurityTable, ZeroPool
from sealign.errors import InvalidInputError
from sealign.protocol import RowKind
from sealign.protocol.conversions.types import public_key_from_wire
from sealign.protocol.v1 import types_pb2 as pb
from sealign.protocol.v1.classification_pb2 import ClassifyRequest
from sealign.protocol.v1.generation_pb2 import NextTokenRequest
from sealign_server.access import Bench, RowAccounts, Share
from sealign_server.access.admission import Admitted
from sealign_server.ledger import UsageKey
from sealign_server.serving import PublicKeys

_INLINE_MS = 5.0
"""Products predicted to take longer run in a thread, so that short queries need not wait for them."""


Query: TypeAlias = ClassifyRequest | NextTokenRequest
_Result = TypeVar("_Result")


class Queries:
    """Accepts encrypted queries.

    Args:
        keys: the clients' public keys.
        accounts: the clients' rows.
        bench: does the work.
        table: security table that keys must satisfy.
    """

    def __init__(self, keys: PublicKeys, accounts: RowAccounts, bench: Bench, table: SecurityTable) -> None:
        self._keys = keys
        self._accounts = accounts
        self._bench = bench
        self._table = table

    def zeros(self, call: Call, request: Query) -> ZeroPool:
        """Return the encryptions of zero under a query's key, which may have come with it.

        Raises:
            UnknownKeyError: it did not, and the silo does not hold it.
            InvalidInputError, InsecureParametersError: the key cannot be used.
        """
        key = public_key_from_wire(request.key, self._table) if request.HasField("key") else None
        is_new = key is not None and not self._keys.holds(call.identity, request.query.key_id)
        pool = self._keys.pool(call.identity, request.query.key_id, key)
        if is_new:
            call.record("key", key=request.query.key_id.hex(), parameters=pool.key.parameters.name)
        return pool

    @contextmanager
    def admitted(self, call: Call, plan: PackingPlan, rows: int) -> Iterator[Admitted]:
        """Take room for a product."""
        share = Share.BULK if plan.cost_of(rows).server_ms > _INLINE_MS else Share.SINGLE
        with self._bench.admitted(share, call.identity, call.remaining) as room:
            yield room

    @contextmanager
    def looking_up(self, call: Call) -> Iterator[Admitted]:
        """Take room for reading files."""
        with self._bench.admitted(Share.LOOKUP, call.identity, call.remaining) as room:
            yield room

    @contextmanager
    def continued(self, call: Call) -> Iterator[Admitted]:
        """Take room for the next part of a product that was admitted."""
        with self._bench.admitted(Share.BULK, call.identity, continued=True) as room:
            yield room

    async def count(self, call: Call, task: str, rows: RowKind, number: int) -> None:
        """Count rows in the ledger, and record them, before they are computed.

        Raises:
            BudgetExhaustedError: the identity may not have so many.
            InvalidInputError: a request may not hold so many.
            StorageError: they cannot be counted or recorded.
        """
        with call.stage("budget"):
            await self._accounts.spend(UsageKey(call.identity, task, rows.encoder), number)
            call.record("query", task=task, encoder=rows.encoder, rows=number)

    @staticmethod
    async def compute(call: Call, room: Admitted, work: Callable[[], _Result]) -> _Result:
        """Do admitted work, once its turn has come, and return its result."""
        asked = perf_counter()

        def timed() -> _Result:
            call.note_stage("wait", perf_counter() - asked)
            with call.stage("product"):
                return work()

        return await room.do(timed)


def rows_in(plan: PackingPlan, query: pb.EncryptedMatrix) -> int:
    """Return how many rows a query may hold, by its number of ciphertexts; nothing is made of them.

    Raises:
        InvalidInputError: the plan allows no such number.
    """
    row_blocks, inner_blocks, _ = plan.counts
    count = len(query.ciphertexts)
    if count % inner_blocks or not 1 <= count // inner_blocks <= row_blocks:
        raise InvalidInputError(
            f"the query holds {count} ciphertexts; the plan asks for {inner_blocks} for each of 1 to {row_blocks} "
            f"blocks of {plan.block.rows} rows"
        )
    return min(count // inner_blocks * plan.block.rows, plan.rows)
