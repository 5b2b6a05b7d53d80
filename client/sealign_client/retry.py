"""The one retry policy of a client.

Faults that pass by themselves (the silo restarts, or is overloaded) are waited out until the caller's deadline, with
growing pauses and jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). States that the
client mends at once, such as a key that the silo does not hold, have a small count of their own.
"""

from __future__ import annotations

import asyncio
import secrets
from time import monotonic

from sealign.errors import (
    OverloadedError,
    SealignError,
    StalePlanError,
    UnavailableError,
    UnknownKeyError,
    UnknownMapError,
)

TRANSIENT = (UnavailableError, OverloadedError)
MENDABLE = (UnknownKeyError, StalePlanError, UnknownMapError)
RETRIED = (*TRANSIENT, *MENDABLE)

_MENDS = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_RANDOM = secrets.SystemRandom()


class Retry:
    """What is left of a caller's patience.

    Args:
        seconds: until it ends; starts again with :meth:`progressed`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.progressed()

    @property
    def remaining(self) -> float:
        """Seconds left, for the next attempt; a little where none is."""
        return max(self._deadline - monotonic(), 1e-3)

    def progressed(self) -> None:
        """Start again: something has come."""
        self._deadline = monotonic() + self._seconds
        self._pause = _FIRST_PAUSE
        self._mends = 0

    async def after(self, error: SealignError) -> None:
        """Wait until it makes sense to try again; raises as :meth:`pause`."""
        await asyncio.sleep(self.pause(error))

    def pause(self, error: SealignError) -> float:
        """Return the seconds after which it makes sense to try again.

        Raises:
            SealignError: the error, if it is of another kind, or if there is no time or no attempt left.
        """
        if isinstance(error, MENDABLE):
            self._mends += 1
            if self._mends >= _MENDS:
                raise error
            return 0.0
        pause = max(self._pause * _RANDOM.uniform(0.5, 1.0), error.retry_after or 0.0)
        if not isinstance(error, TRANSIENT) or monotonic() + pause >= self._deadline:
            raise error
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return pause
