"""How much is under way at once: work is admitted before it waits, and refused at once where it would wait too long."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any, TypeVar

from sealign.errors import OverloadedError

_Result = TypeVar("_Result")

_IDENTITY_SHARE = 0.75
"""Of each share, the part that one identity may take, so that another always finds room."""


class Share(enum.Enum):
    """Kinds of work, of which none can take the room of another."""

    SINGLE = "single"
    """Products of a few milliseconds, in the event loop, one after the other."""
    BULK = "bulk"
    """Longer ones, in a thread."""
    LOOKUP = "lookup"
    """Descriptions and other reading of files, in threads."""


@dataclass
class _Job:
    work: Callable[[], Any]
    future: asyncio.Future[Any]
    expires: float


@dataclass(frozen=True)
class Admitted:
    """Room for one piece of work."""

    bench: Bench
    share: Share
    expires: float

    async def do(self, work: Callable[[], _Result]) -> _Result:
        """Do work and return its result."""
        return await self.bench.run(self.share, work, self.expires)


class Bench:
    """Does the work of one process, within one limit.

    Args:
        most: of each share under way at once, waiting included; bulk products and look-ups a quarter of it.
    """

    def __init__(self, most: int) -> None:
        self._most = {Share.SINGLE: most, Share.BULK: max(1, most // 4), Share.LOOKUP: max(2, most // 2)}
        self._taken: Counter[Share] = Counter()
        self._by_identity: Counter[tuple[Share, str]] = Counter()
        self._short: deque[_Job] = deque()
        self._waiting = asyncio.Event()
        self._threads = {
            Share.BULK: ThreadPoolExecutor(2, thread_name_prefix="bulk"),
            Share.LOOKUP: ThreadPoolExecutor(4, thread_name_prefix="lookup"),
        }
        self._seconds = {Share.SINGLE: 0.002, Share.BULK: 0.05, Share.LOOKUP: 0.05}
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no short work waits."""
        return not self._short

    @contextmanager
    def admitted(
        self, share: Share, identity: str, remaining: float | None = None, *, continued: bool = False
    ) -> Iterator[Admitted]:
        """Take room for one piece of work, before anything is awaited for it; yields what does the work.

        Args:
            share: that it takes room of.
            identity: for whom.
            remaining: seconds until nobody waits for the result.
            continued: part of something that was admitted before, which is never refused.

        Raises:
            OverloadedError: there is too much under way already, or the result would come too late.
        """
        if not continued:
            self._require_room(share, identity, remaining)
        self._taken[share] += 1
        self._by_identity[share, identity] += 1
        try:
            yield Admitted(self, share, float("inf") if remaining is None else monotonic() + remaining)
        finally:
            self._taken[share] -= 1
            self._by_identity[share, identity] -= 1
            if not self._by_identity[share, identity]:
                del self._by_identity[share, identity]

    async def run(self, share: Share, work: Callable[[], _Result], expires: float) -> _Result:
        """Do admitted work: in the event loop when its turn has come, or in a thread."""
        if share is Share.SINGLE:
            return await self._in_turn(work, expires)
        started = perf_counter()
        done: _Result = await asyncio.get_running_loop().run_in_executor(self._threads[share], work)
        self._learn(share, perf_counter() - started)
        return done

    def close(self) -> None:
        """End the threads once they have nothing to do."""
        if self._worker is not None:
            self._worker.cancel()
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)

    def _require_room(self, share: Share, identity: str, remaining: float | None) -> None:
        most, taken = self._most[share], self._taken[share]
        wait = taken * self._seconds[share]
        mine = self._by_identity[share, identity]
        if taken >= most or mine >= max(1, int(most * _IDENTITY_SHARE)):
            raise OverloadedError(
                f"the silo has {taken} requests of this kind under way already; try again", retry_after=max(0.05, wait)
            )
        if remaining is not None and remaining < wait:
            raise OverloadedError(
                "the silo could not answer before the deadline; allow more time, or try again",
                retry_after=max(0.05, wait),
            )

    async def _in_turn(self, work: Callable[[], _Result], expires: float) -> _Result:
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._short.append(_Job(work, future, expires))
        self._waiting.set()
        return await future

    async def _work(self) -> None:
        """Do short work, one after the other; between two, the loop takes what has come."""
        while True:
            if not self._short:
                self._waiting.clear()
                await self._waiting.wait()
            job = self._short.popleft()
            if job.future.done() or monotonic() > job.expires:  # its caller has left
                job.future.cancel()
                continue
            started = perf_counter()
            try:
                result = job.work()
            except Exception as error:  # noqa: BLE001 - it is the caller's
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
            self._learn(Share.SINGLE, perf_counter() - started)
            await asyncio.sleep(0)

    def _learn(self, share: Share, seconds: float) -> None:
        self._seconds[share] += 0.1 * (seconds - self._seconds[share])
