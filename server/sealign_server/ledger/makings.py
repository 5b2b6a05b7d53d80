"""Maps that were learned, and maps that clients registered: each costs the silo work and disk, and tells a little."""

from __future__ import annotations

import time

from sqlalchemy import func, select

from sealign.errors import BudgetExhaustedError
from sealign_server.ledger.database import MAKINGS, Ledger

MAP, REGISTRATION = "map", "registration"
_DAY = 86400.0
_t = MAKINGS.c


class Makings:
    """Counts maps and registrations of each identity.

    Args:
        ledger: holds them.
        per_day: allowed in any 24 hours.
    """

    def __init__(self, ledger: Ledger, per_day: int) -> None:
        self._ledger = ledger
        self._per_day = per_day

    def record(self, kind: str, space: str, encoder: str, identity: str) -> None:
        """Count one, before the work.

        Raises:
            BudgetExhaustedError: the identity has made all that it may in 24 hours.
            StorageError: the ledger cannot be written; nothing may be made.
        """
        now = time.time()
        with self._ledger.transaction() as connection:
            recent = (_t.identity == identity, _t.at > now - _DAY)
            count, first = connection.execute(select(func.count(), func.min(_t.at)).where(*recent)).one()
            if count >= self._per_day:
                raise BudgetExhaustedError(
                    f"this identity has made {count} maps and registrations in 24 hours, which is all the silo allows; "
                    "use those that were made, or come back later",
                    retry_after=max(1.0, first + _DAY - now),
                )
            values = {"at": now, "kind": kind, "space": space, "encoder": encoder, "identity": identity}
            connection.execute(MAKINGS.insert().values(values))
