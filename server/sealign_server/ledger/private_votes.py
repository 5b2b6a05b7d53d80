"""Votes of private texts: what each run of them costs in privacy, by task."""

from __future__ import annotations

from datetime import datetime, timezone

from sqlalchemy import select

from sealign.synthetic import VotingRun
from sealign_server.ledger.database import PRIVATE_VOTES, Ledger

_t = PRIVATE_VOTES.c


class PrivateVotes:
    """Records runs of votes before they are held. A task that was removed, or trained again, keeps its runs.

    Args:
        ledger: holds them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(self, task: str, run: VotingRun) -> None:
        """Count a run of votes of a task's texts, durably.

        Raises:
            StorageError: the ledger cannot be written; no vote may be held.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        values = {"created": now, "task": task, "rounds": run.rounds, "scale": run.scale}
        with self._ledger.transaction() as connection:
            connection.execute(PRIVATE_VOTES.insert().values(values))

    def runs(self, task: str) -> list[VotingRun]:
        """Return the runs of a task, the oldest first.

        Raises:
            StorageError: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        with self._ledger.reading() as connection:
            found = connection.execute(select(_t.rounds, _t.scale).where(_t.task == task).order_by(_t.number))
            return [VotingRun(rounds, scale) for rounds, scale in found]
