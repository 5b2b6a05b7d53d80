"""Rows that clients have had computed, by identity, task, encoder and hour."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, case, func, select, update

from sealign.errors import BudgetExhaustedError
from sealign_server.ledger.database import USAGE, Ledger

_DAY = 24
_SHARE = 8
_t = USAGE.c


class UsageKey(NamedTuple):
    """Whose rows are counted: an identity's, for a task, from an encoder."""

    identity: str
    task: str
    encoder: str

    @property
    def scope(self) -> str:
        """Of transactions: a budget is one identity's for one task."""
        return json.dumps([self.identity, self.task])


@dataclass(frozen=True)
class Budget:
    """Rows that an identity may have computed for one task, over all encoders; None for no limit.

    Attributes:
        hour: in one hour of the clock.
        day: in 24 hours, this one included.
        lifetime: ever.
    """

    hour: int | None = None
    day: int | None = None
    lifetime: int | None = None


@dataclass(frozen=True)
class Spent:
    """Rows that an identity has had computed for one task, over all encoders.

    Attributes:
        identity, task: whose they are.
        hour, day, lifetime: as in :class:`Budget`.
    """

    identity: str
    task: str
    hour: int
    day: int
    lifetime: int

    def left(self, budget: Budget) -> float:
        """Return the lowest part of a budget that is left, from 0 to 1."""
        pairs = ((self.hour, budget.hour), (self.day, budget.day), (self.lifetime, budget.lifetime))
        return min((max(0.0, 1 - used / limit) for used, limit in pairs if limit is not None), default=1.0)


class Usage:
    """Counts rows, and limits those of an identity for one task.

    The limit holds for all encoders together: an encoder's fingerprint is what the client says, and d+1 queries reveal
    a head whatever encoder they come from.

    Args:
        ledger: holds them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def debit(self, key: UsageKey, rows: int, wanted: int, budget: Budget) -> int:
        """Count rows before they are computed, durably, and return how many were counted.

        Args:
            key: whose they are.
            rows: that are needed now.
            wanted: to count at most, so that not each request costs a transaction; fewer, down to ``rows``, when a
                limit is near.
            budget: that they must fit into.

        Raises:
            BudgetExhaustedError: the identity may not have so many.
            StorageError: the ledger cannot be written; nothing may be computed.
        """
        hour, granted = this_hour(), max(rows, wanted)
        mine = (_t.identity == key.identity, _t.task == key.task)
        periods = (
            (budget.hour, 1, "in one hour"),
            (budget.day, _DAY, "in 24 hours"),
            (budget.lifetime, None, "in all"),
        )
        with self._ledger.transaction(key.scope) as connection:
            for limit, hours, within in periods:
                if limit is None:
                    continue
                recent = mine if hours is None else (*mine, _t.hour > hour - hours)
                used, first = connection.execute(select(func.sum(_t.rows), func.min(_t.hour)).where(*recent)).one()
                left = limit - (used or 0)
                if rows > left:
                    wait = None if hours is None else max(1.0, ((first or hour) + hours) * 3600 - time.time())
                    raise BudgetExhaustedError(
                        f"{rows} rows are more than the {max(left, 0)} that this identity has left for {key.task}: the "
                        f"silo allows {limit} {within}",
                        retry_after=wait,
                    )
                granted = max(rows, min(granted, left // _SHARE))
            self._add(connection, key, hour, granted)
        return granted

    def give_back(self, key: UsageKey, hour: int, rows: int) -> None:
        """Take back rows that were counted in an hour and not computed.

        Raises:
            StorageError: the ledger cannot be written; they stay counted.
        """
        with self._ledger.transaction(key.scope) as connection:
            self._add(connection, key, hour, -rows)

    def totals(self) -> list[tuple[str, str, str, int]]:
        """Return rows by identity, task and encoder, of all time.

        Raises:
            StorageError: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        with self._ledger.reading() as connection:
            groups = (_t.identity, _t.task, _t.encoder)
            found = connection.execute(select(*groups, func.sum(_t.rows)).group_by(*groups).order_by(*groups))
            return [(identity, task, encoder, int(rows)) for identity, task, encoder, rows in found]

    def spent(self) -> list[Spent]:
        """Return rows by identity and task, over all encoders.

        Raises:
            StorageError: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        hour = this_hour()
        sums = [func.sum(case((_t.hour > hour - hours, _t.rows), else_=0)) for hours in (1, _DAY)]
        groups = (_t.identity, _t.task)
        with self._ledger.reading() as connection:
            found = connection.execute(select(*groups, *sums, func.sum(_t.rows)).group_by(*groups).order_by(*groups))
            return [Spent(identity, task, *map(int, rows)) for identity, task, *rows in found]

    @staticmethod
    def _add(connection: Connection, key: UsageKey, hour: int, rows: int) -> None:
        values = {"identity": key.identity, "task": key.task, "encoder": key.encoder, "hour": hour}
        where = [_t[name] == value for name, value in values.items()]
        if not connection.execute(update(USAGE).where(*where).values(rows=_t.rows + rows)).rowcount:
            connection.execute(USAGE.insert().values(values | {"rows": rows}))


def this_hour() -> int:
    """Return hours since 1970: rows are counted by the hour."""
    return int(time.time() // 3600)
