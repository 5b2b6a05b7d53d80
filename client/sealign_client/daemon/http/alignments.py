"""The page's alignment: one at a time, in the background, followed by its id."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from sealign.protocol import MapCard
from sealign_client.daemon.http.problems import HttpError, Problem, problem_of

Report = Callable[[str, float], None]
State = Literal["running", "done", "failed", "cancelled"]
_MOST_REMEMBERED = 16


@dataclass
class Alignment:
    """An alignment under way, or how it ended.

    Attributes:
        stage, fraction: what is done now, and how much of it, 0 to 1.
        learned: the map, once it is done.
        problem: why it failed.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "running"
    stage: str = "starting"
    fraction: float = 0.0
    learned: MapCard | None = None
    problem: Problem | None = None


class Alignments:
    """Starts alignments, one at a time, and remembers how the last ones ended."""

    def __init__(self) -> None:
        self._known: dict[str, Alignment] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Callable[[Report], Awaitable[MapCard]]) -> Alignment:
        """Start an alignment.

        Raises:
            HttpError: 409, if one is under way.
        """
        if self._task is not None and not self._task.done():
            raise HttpError(409, "OVERLOADED", "An alignment is under way. Wait for it, or cancel it.")
        alignment = Alignment()
        self._known[alignment.id] = alignment
        for old in list(self._known)[:-_MOST_REMEMBERED]:
            del self._known[old]
        self._task = asyncio.ensure_future(_followed(alignment, work))
        return alignment

    def find(self, name: str) -> Alignment:
        """Return an alignment by its id.

        Raises:
            HttpError: 404.
        """
        if name not in self._known:
            raise HttpError(404, "NOT_FOUND", "There is no alignment of that id. Start one.")
        return self._known[name]

    def cancel(self, name: str) -> Alignment:
        """Cancel an alignment that is under way; one that has ended stays as it is.

        Raises:
            HttpError: 404.
        """
        alignment = self.find(name)
        if alignment.state == "running" and self._task is not None:
            self._task.cancel()
        return alignment

    async def close(self) -> None:
        """Cancel what is under way and wait for it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _followed(alignment: Alignment, work: Callable[[Report], Awaitable[MapCard]]) -> None:
    def report(stage: str, fraction: float) -> None:
        alignment.stage, alignment.fraction = stage, min(max(fraction, 0.0), 1.0)

    try:
        alignment.learned = await work(report)
        alignment.state, alignment.fraction = "done", 1.0
    except asyncio.CancelledError:
        alignment.state = "cancelled"
    except Exception as error:  # noqa: BLE001 - what failed is told to the page, under an id if it is this machine's
        alignment.problem, alignment.state = problem_of(error), "failed"
