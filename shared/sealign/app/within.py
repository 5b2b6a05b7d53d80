"""A limit of seconds on what a task awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from sealign.errors import SealignError

_LATE_SECONDS = 0.05
"""Lateness of a timer beyond which the event loop was busy."""


class Within:
    """A limit of seconds on what the current task awaits inside; beyond it, the error is raised.

    An event loop that was busy is late itself: once, it gets as long as it was late to deliver what came in time.

    Args:
        seconds: until then.
        error: what to raise; None lets the task wait on, so that a check can be made on the way.
    """

    def __init__(self, seconds: float, error: Callable[[], SealignError | None]) -> None:
        self._seconds = seconds
        self._error = error
        self._raised: SealignError | None = None
        self._was_late = False

    def __enter__(self) -> Within:
        self._task = asyncio.current_task()
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._expire)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._handle.cancel()
        if self._raised is not None and kind is asyncio.CancelledError:
            uncancel = getattr(self._task, "uncancel", None)  # Python 3.11 counts requests to cancel
            if uncancel is not None:
                uncancel()
            raise self._raised from None

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        late = loop.time() - self._handle.when()
        if late > _LATE_SECONDS and not self._was_late:
            self._was_late = True
            self._handle = loop.call_later(late, self._expire)
            return
        self._raised = self._error()
        if self._raised is not None and self._task is not None:
            self._task.cancel()
