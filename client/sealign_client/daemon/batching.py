"""Texts of several callers in shared batches: short texts with short ones, nobody before everybody else.

One caller's 3,000 texts do not make another's single text wait: every batch takes from all callers in turn. What a
caller that has left still had in the queue is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sealign.errors import InvalidInputError, OverloadedError
from sealign_client.results import Classification

Classify: TypeAlias = Callable[[Sequence[str], str | None], Awaitable[list[Classification]]]

_BATCH = 64
_IN_FLIGHT = 2
"""Batches at once: one is embedded while the other is at the silo."""

MAX_QUEUED = 1 << 14
"""Texts that wait; further callers are told to come back."""


@dataclass(eq=False)
class _Caller:
    """One call's texts, those that still wait, the shortest first, and their results."""

    texts: Sequence[str]
    waiting: deque[int]
    done: asyncio.Future[list[Classification]]
    results: dict[int, Classification] = field(default_factory=dict)

    def take(self, count: int) -> list[tuple[_Caller, int]]:
        return [(self, self.waiting.popleft()) for _ in range(min(count, len(self.waiting)))]

    def finish(self, index: int, result: Classification) -> None:
        self.results[index] = result
        if len(self.results) == len(self.texts) and not self.done.done():
            self.done.set_result([self.results[number] for number in range(len(self.texts))])

    def fail(self, error: BaseException) -> None:
        self.waiting.clear()
        if not self.done.done():
            self.done.set_exception(error)


class Batcher:
    """Classifies texts of many callers through one client.

    Args:
        classify: classifies one batch.
    """

    def __init__(self, classify: Classify) -> None:
        self._classify = classify
        self._queues: dict[str | None, deque[_Caller]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def classify(self, texts: Sequence[str], task: str | None) -> list[Classification]:
        """Return the classifications of texts, in their order.

        Raises:
            OverloadedError: too many texts wait already.
            SealignError: as `AsyncClient.classify`.
        """
        if not texts:
            return await self._classify(texts, task)
        waiting = sum(len(caller.waiting) for queue in self._queues.values() for caller in queue)
        if waiting + len(texts) > MAX_QUEUED and waiting:
            raise OverloadedError(f"{waiting} texts wait at the daemon. Try again later.", retry_after=1.0)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        caller = _Caller(texts, deque(order), asyncio.get_running_loop().create_future())
        self._queues.setdefault(task, deque()).append(caller)
        while len(self._running) < _IN_FLIGHT:
            worker = asyncio.create_task(self._work())
            self._running.add(worker)
            worker.add_done_callback(self._running.discard)
        try:
            return await caller.done
        finally:
            caller.waiting.clear()

    async def _work(self) -> None:
        """Classify batches until nothing waits."""
        while batch := self._next():
            task, items = batch
            try:
                results = await self._classify([caller.texts[index] for caller, index in items], task)
            except InvalidInputError as error:
                await self._one_by_one(task, items, error)
            except Exception as error:  # noqa: BLE001 - it belongs to the callers
                for caller, _ in items:
                    caller.fail(error)
            else:
                for (caller, index), result in zip(items, results, strict=True):
                    caller.finish(index, result)

    async def _one_by_one(
        self, task: str | None, items: Sequence[tuple[_Caller, int]], error: InvalidInputError
    ) -> None:
        """Give a fault in one caller's texts to that caller alone, named by its own index."""
        callers = dict.fromkeys(caller for caller, _ in items)
        if len(items) == 1 == len(items[0][0].texts):  # of others, the error counts texts in the order of the batch
            items[0][0].fail(error)
            return
        for caller in callers:
            caller.waiting.clear()
            try:
                results = await self._classify(caller.texts, task)
            except Exception as own:  # noqa: BLE001
                caller.fail(own)
            else:
                for index, result in enumerate(results):
                    caller.finish(index, result)

    def _next(self) -> tuple[str | None, list[tuple[_Caller, int]]] | None:
        """Return the next batch, of the task whose first caller has waited longest, or None if nothing waits."""
        for task, queue in list(self._queues.items()):
            callers = [caller for caller in queue if caller.waiting and not caller.done.done()]
            del self._queues[task]
            if not callers:
                continue
            served, share = callers[:_BATCH], max(1, _BATCH // len(callers))
            items = [item for caller in served for item in caller.take(share)]
            for caller in served:
                items += caller.take(_BATCH - len(items))
            # Those that were served go to the end, so that the others come first in the next batch.
            self._queues[task] = deque(callers[_BATCH:] + served)
            items.sort(key=lambda item: len(item[0].texts[item[1]]))
            return task, items
        return None
