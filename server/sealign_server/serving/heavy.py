"""Work of seconds (heads fitted to maps, vocabularies encoded, maps learned): in one thread, fairly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sealign.errors import OverloadedError

_Result = TypeVar("_Result")

_WAITING = 8
"""Heavy work that one identity may have waiting."""


class HeavyWork:
    """One thread for a process. An identity has one piece of work in its queue, so another waits for that at most."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heavy")
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, int] = {}
        self._running: set[asyncio.Future[object]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether work has begun that has not ended."""
        return bool(self._running)

    async def do(self, identity: str, work: Callable[[], _Result]) -> _Result:
        """Do work and return its result; what has begun ends, even if its caller leaves.

        Raises:
            OverloadedError: this identity has too much waiting.
        """
        if self._waiting.get(identity, 0) >= _WAITING:
            raise OverloadedError(
                f"{_WAITING} requests of this client wait for heads or maps already; try again", retry_after=1.0
            )
        self._waiting[identity] = self._waiting.get(identity, 0) + 1
        lock = self._locks.setdefault(identity, asyncio.Lock())
        try:
            async with lock:
                running = asyncio.get_running_loop().run_in_executor(self._thread, work)
                self._running.add(running)  # type: ignore[arg-type]
                running.add_done_callback(self._running.discard)
                return await asyncio.shield(running)
        finally:
            self._waiting[identity] -= 1
            if not self._waiting[identity]:
                del self._waiting[identity], self._locks[identity]

    def close(self) -> None:
        """End the thread once its work is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)
