"""Rows are counted in the ledger before they are computed, some ahead so that not every request costs a transaction."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from sealign.errors import InvalidInputError, StorageError
from sealign_server.ledger import Budget, Usage, UsageKey, this_hour

_log = structlog.get_logger()

_AHEAD = 256
"""Rows counted at once, as long as every limit is far. A crash costs a client at most so many, and the silo none."""
_ACCOUNTS = 4096


@dataclass(frozen=True)
class Allowance:
    """How many rows an identity may have computed.

    Attributes:
        per_request: in one request.
        budget: for one task.
    """

    per_request: int
    budget: Budget


class RowAccounts:
    """The rows that this process has counted ahead, by identity, task and encoder.

    Args:
        usage: the ledger's count.
        allowance: function that returns what an identity may have.
    """

    def __init__(self, usage: Usage, allowance: Callable[[str], Allowance]) -> None:
        self._usage = usage
        self._allowance = allowance
        self._ahead: dict[UsageKey, int] = {}
        self._hour = this_hour()
        self._locks: defaultdict[UsageKey, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def spend(self, key: UsageKey, rows: int) -> None:
        """Count rows; returns when that is durable.

        Raises:
            InvalidInputError: more than a request may hold.
            BudgetExhaustedError: the identity may not have so many.
            StorageError: they cannot be counted; nothing may be computed.
        """
        allowed = self._allowance(key.identity)
        if rows > allowed.per_request:
            raise InvalidInputError(f"a request of up to {rows} rows is more than the {allowed.per_request} allowed")
        self._begin_hour()
        if self._ahead.get(key, 0) < rows:
            async with self._locks[key]:
                lacking = rows - self._ahead.get(key, 0)
                if lacking > 0:
                    asked = (key, lacking, max(lacking, _AHEAD), allowed.budget)
                    granted = await asyncio.to_thread(self._usage.debit, *asked)
                    self._ahead[key] = self._ahead.get(key, 0) + granted
        self._ahead[key] -= rows
        if len(self._locks) > _ACCOUNTS:
            await self.release()

    async def release(self) -> None:
        """Give back what was counted ahead and not computed; what is computed next is counted anew."""
        await asyncio.to_thread(self._give_back, self._taken(), self._hour)

    def close(self) -> None:
        """Give back what was counted ahead and not computed, at the end."""
        self._give_back(self._taken(), self._hour)

    def _taken(self) -> dict[UsageKey, int]:
        """Return what was counted ahead, which is no longer there to be spent."""
        ahead, self._ahead = self._ahead, {}
        self._locks = defaultdict(asyncio.Lock, {key: lock for key, lock in self._locks.items() if lock.locked()})
        return ahead

    def _give_back(self, ahead: dict[UsageKey, int], hour: int) -> None:
        if this_hour() != hour:
            return
        for key, rows in ahead.items():
            if rows:
                try:
                    self._usage.give_back(key, hour, rows)
                except StorageError as error:
                    _log.error("rows counted ahead stay counted", rows=rows, reason=str(error))
                    return

    def _begin_hour(self) -> None:
        """Forget what was counted ahead in an earlier hour: it is of that hour."""
        if this_hour() != self._hour:
            self._hour = this_hour()
            self._ahead = {}
