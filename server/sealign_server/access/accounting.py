"""Rows are counted in the ledger before they are computed, some ahead so that not every request costs a transaction."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import structlog

from sealign.errors import InvalidInputError, StorageError
from sealign_server.ledger import Usage, this_hour

_log = structlog.get_logger()

_AHEAD = 256
"""Rows counted at once, as long as the day's limit is far. A crash loses at most so many, never the silo."""
_ACCOUNTS = 4096

_Key = tuple[str, str, str]


class RowAccounts:
    """The rows that this process has counted ahead, by identity, task and encoder.

    Args:
        usage: the ledger's count.
        per_request: rows that one request may hold.
    """

    def __init__(self, usage: Usage, per_request: int) -> None:
        self._usage = usage
        self._per_request = per_request
        self._ahead: dict[_Key, int] = {}
        self._hour = this_hour()
        self._locks: defaultdict[_Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def spend(self, identity: str, task: str, encoder: str, rows: int) -> None:
        """Count rows; returns when that is durable.

        Raises:
            InvalidInputError: more than a request may hold.
            BudgetExhaustedError: the identity may not have so many.
            StorageError: they cannot be counted; nothing may be computed.
        """
        if rows > self._per_request:
            raise InvalidInputError(f"a request of up to {rows} rows is more than the {self._per_request} allowed")
        self._begin_hour()
        key = (identity, task, encoder)
        if self._ahead.get(key, 0) < rows:
            async with self._locks[key]:
                lacking = rows - self._ahead.get(key, 0)
                if lacking > 0:
                    granted = await asyncio.to_thread(self._usage.debit, *key, lacking, max(lacking, _AHEAD))
                    self._ahead[key] = self._ahead.get(key, 0) + granted
        self._ahead[key] -= rows
        if len(self._locks) > _ACCOUNTS:
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Give back what was counted ahead and not computed."""
        ahead, self._ahead = self._ahead, {}
        self._locks = defaultdict(asyncio.Lock, {key: lock for key, lock in self._locks.items() if lock.locked()})
        if this_hour() != self._hour:
            return
        for key, rows in ahead.items():
            if rows:
                try:
                    self._usage.give_back(*key, rows)
                except StorageError as error:
                    _log.error("rows counted ahead stay counted", rows=rows, reason=str(error))
                    return

    def _begin_hour(self) -> None:
        """Forget what was counted ahead in an earlier hour: it is of that hour."""
        if this_hour() != self._hour:
            self._hour = this_hour()
            self._ahead = {}
