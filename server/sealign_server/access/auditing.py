"""What callers did and were refused goes into the audit trail, before it is done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import structlog

from sealign.app.ending import Ending
from sealign.app.frame import Call, Fact, Layer
from sealign.errors import StorageError
from sealign_server.store import AuditTrail

_log = structlog.get_logger()

_REFUSALS = frozenset({"RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAUTHENTICATED"})
_SYNC_SECONDS = 1.0
_CHECKPOINT_SECONDS = 60.0

_Refusal = tuple[str, str, str, str]


class AuditLayer(Layer):
    """Writes a record of each deed before it is done, and of each refusal.

    The first refusal of a kind is recorded at once. More of the same identity, call and reason within a second are
    recorded together, with their number, so that a flood of refused calls does not fill the disk.

    Args:
        trail: where records go.
    """

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail
        self._repeated: Counter[_Refusal] = Counter()

    def on_record(self, call: Call, kind: str, facts: Mapping[str, Fact]) -> None:
        """Record a deed.

        Raises:
            StorageError: it could not be recorded; the deed must not be done.
        """
        self._trail.append(kind, call.identity, {"request": call.request_id, **_by(call.proxy), **facts})

    def on_end(self, call: Call, ending: Ending) -> None:
        """Record a refusal; a call that is refused stays so where that cannot be recorded."""
        if ending.status in _REFUSALS:
            self._refused((call.identity, call.proxy, call.method, ending.code))

    async def keep(self) -> None:
        """Bring records to the disk every second, and sign the chain every minute; never returns."""
        seconds = 0.0
        while True:
            await asyncio.sleep(_SYNC_SECONDS)
            seconds += _SYNC_SECONDS
            await asyncio.to_thread(self.flush, sign=seconds >= _CHECKPOINT_SECONDS)
            seconds %= _CHECKPOINT_SECONDS

    def flush(self, *, sign: bool) -> None:
        """Record repeated refusals, bring everything to the disk, and sign the chain; what fails is logged."""
        repeated, self._repeated = self._repeated, Counter()
        try:
            for (identity, proxy, method, code), count in repeated.items():
                if count > 1:
                    facts = {"rpc": method, **_by(proxy), "reason": code, "repeated": count - 1}
                    self._trail.append("refusal", identity, facts)
            if sign:
                number, digest = self._trail.checkpoint()
                _log.info("audit checkpoint", record=number, hash=digest)
            self._trail.sync()
        except (StorageError, OSError) as error:
            _log.error("the audit trail cannot be written", reason=str(error))

    def _refused(self, refusal: _Refusal) -> None:
        self._repeated[refusal] += 1
        if self._repeated[refusal] > 1:
            return
        identity, proxy, method, code = refusal
        try:
            self._trail.append("refusal", identity, {"rpc": method, **_by(proxy), "reason": code})
        except StorageError as error:
            _log.error("the audit trail cannot be written", reason=str(error))


def _by(proxy: str) -> dict[str, Fact]:
    """Return the fact that a proxy named the caller."""
    return {"proxy": proxy} if proxy else {}
