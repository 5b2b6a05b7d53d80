"""Rows that clients have had computed, by identity, task, encoder and hour."""

from __future__ import annotations

import time

from sqlalchemy import Connection, func, select, update

from sealign.errors import BudgetExhaustedError
from sealign_server.ledger.database import USAGE, Ledger

_HOURS = 24
_SHARE = 8
_t = USAGE.c


class Usage:
    """Counts rows, and limits those of an identity for one task in the last 24 hours.

    The limit holds for all encoders together: an encoder's fingerprint is what the client says, and d+1 queries reveal
    a head whatever encoder they come from.

    Args:
        ledger: holds them.
        per_day: rows allowed; None for no limit.
    """

    def __init__(self, ledger: Ledger, per_day: int | None) -> None:
        self._ledger = ledger
        self._per_day = per_day

    def debit(self, identity: str, task: str, encoder: str, rows: int, wanted: int) -> int:
        """Count rows before they are computed, durably, and return how many were counted.

        Args:
            identity, task, encoder: whose they are.
            rows: that are needed now.
            wanted: to count at most, so that not each request costs a transaction; fewer, down to ``rows``, when the
                limit is near.

        Raises:
            BudgetExhaustedError: the identity may not have so many.
            StorageError: the ledger cannot be written; nothing may be computed.
        """
        hour = this_hour()
        with self._ledger.transaction() as connection:
            granted = max(rows, wanted)
            if self._per_day is not None:
                recent = (_t.identity == identity, _t.task == task, _t.hour > hour - _HOURS)
                used, first = connection.execute(select(func.sum(_t.rows), func.min(_t.hour)).where(*recent)).one()
                left = self._per_day - (used or 0)
                if rows > left:
                    raise BudgetExhaustedError(
                        f"{rows} rows are more than the {max(left, 0)} that this identity has left for {task}: the "
                        f"silo allows {self._per_day} in 24 hours",
                        retry_after=max(1.0, ((hour if first is None else first) + _HOURS) * 3600 - time.time()),
                    )
                granted = max(rows, min(wanted, left // _SHARE))
            self._add(connection, (identity, task, encoder, hour), granted)
        return granted

    def give_back(self, identity: str, task: str, encoder: str, rows: int) -> None:
        """Take back rows that were counted in this hour and not computed.

        Raises:
            StorageError: the ledger cannot be written; they stay counted.
        """
        with self._ledger.transaction() as connection:
            self._add(connection, (identity, task, encoder, this_hour()), -rows)

    def totals(self) -> list[tuple[str, str, str, int]]:
        """Return rows by identity, task and encoder, of all time.

        Raises:
            StorageError: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        with self._ledger.transaction() as connection:
            groups = (_t.identity, _t.task, _t.encoder)
            found = connection.execute(select(*groups, func.sum(_t.rows)).group_by(*groups).order_by(*groups))
            return [(identity, task, encoder, int(rows)) for identity, task, encoder, rows in found]

    def remaining(self) -> dict[str, float]:
        """Return the lowest part of the limit that an identity has left, by task.

        Raises:
            StorageError: the ledger cannot be read.
        """
        if self._per_day is None or self._ledger.is_empty:
            return {}
        with self._ledger.transaction() as connection:
            used = select(_t.task, func.sum(_t.rows).label("rows")).where(_t.hour > this_hour() - _HOURS)
            each = used.group_by(_t.identity, _t.task).subquery()
            most = connection.execute(select(each.c.task, func.max(each.c.rows)).group_by(each.c.task))
            return {task: max(0.0, 1 - rows / self._per_day) for task, rows in most}

    @staticmethod
    def _add(connection: Connection, key: tuple[str, str, str, int], rows: int) -> None:
        names = ("identity", "task", "encoder", "hour")
        where = [_t[name] == value for name, value in zip(names, key, strict=True)]
        if not connection.execute(update(USAGE).where(*where).values(rows=_t.rows + rows)).rowcount:
            connection.execute(USAGE.insert().values(dict(zip(names, key, strict=True)) | {"rows": rows}))


def this_hour() -> int:
    """Return hours since 1970: rows are counted by the hour."""
    return int(time.time() // 3600)
