"""Texts of concurrent callers in shared passes of the encoder, nobody before everybody else.

One caller's 3,000 texts do not make another's single text wait: every pass takes from all callers in turn, short texts
with short ones. What a caller that has left still had in the queue is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.encoders.encoder import Embeddings
from sealign.encoders.settings import LongTexts
from sealign.errors import InvalidInputError

Lengths: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[int]]]
Embed: TypeAlias = Callable[[Sequence[str], LongTexts | None], Awaitable[Embeddings]]
Progress: TypeAlias = Callable[[int], None]

_FEWEST, _MOST = 8, 64
"""Texts in a pass. Half of those that wait stay for the next one, which is embedded while these are at the silo."""


@dataclass(eq=False)
class _Caller:
    """One call's texts, those that still wait, and their rows. The longest come first: they may be refused."""

    texts: Sequence[str]
    waiting: deque[int]
    done: asyncio.Future[Embeddings]
    progress: Progress | None
    rows: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def take(self, count: int) -> list[tuple[_Caller, int]]:
        return [(self, self.waiting.popleft()) for _ in range(min(count, len(self.waiting)))]

    def add(self, indices: Sequence[int], rows: Embeddings) -> None:
        """Note the rows of some texts."""
        self.rows.update(zip(indices, rows, strict=True))
        if self.done.done():
            return
        if self.progress is not None:
            try:
                self.progress(len(indices))
            except Exception as error:  # noqa: BLE001 - it belongs to the caller
                self.fail(error)
                return
        if len(self.rows) == len(self.texts):
            self.done.set_result(np.stack([self.rows[number] for number in range(len(self.texts))]))

    def fail(self, error: BaseException) -> None:
        self.waiting.clear()
        if not self.done.done():
            self.done.set_exception(error)


class Passes:
    """Embeds texts of many callers with one encoder.

    Args:
        embed: embeds the texts of one pass, in their order.
        lengths: returns how long texts are to the model.
    """

    def __init__(self, embed: Embed, lengths: Lengths) -> None:
        self._embed = embed
        self._lengths = lengths
        self._queues: dict[LongTexts | None, deque[_Caller]] = {}
        self._working: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of texts that wait for a pass."""
        return sum(len(caller.waiting) for queue in self._queues.values() for caller in queue)

    async def embed(
        self, texts: Sequence[str], long_texts: LongTexts | None = None, progress: Progress | None = None
    ) -> Embeddings:
        """Return the embeddings of texts, (n, d), in their order.

        Args:
            texts: one or more.
            long_texts: what becomes of texts beyond the model's window; by default as the encoder's settings say.
            progress: told after each pass how many of these texts it has done.

        Raises:
            InvalidInputError: a text that cannot be embedded, by its number among these.
        """
        # An encoder sorts the texts of a pass. More texts than that are spread over passes by what the model reads:
        # sorted by characters, newswire has an eighth more padding with MiniLM, and takes as much longer.
        lengths = await self._lengths(texts) if len(texts) > _MOST else [len(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: -lengths[index])
        caller = _Caller(texts, deque(order), asyncio.get_running_loop().create_future(), progress)
        self._queues.setdefault(long_texts, deque()).append(caller)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        try:
            return await caller.done
        finally:
            caller.waiting.clear()

    async def _work(self) -> None:
        """Embed until nothing waits."""
        while taken := self._next():
            long_texts, items = taken
            try:
                rows = await self._embed([caller.texts[index] for caller, index in items], long_texts)
            except InvalidInputError as error:
                await self._one_by_one(long_texts, items, error)
            except Exception as error:  # noqa: BLE001 - it belongs to the callers
                for caller, _ in items:
                    caller.fail(error)
            else:
                for caller, places in _places(items).items():
                    caller.add([items[place][1] for place in places], rows[places])

    async def _one_by_one(
        self, long_texts: LongTexts | None, items: Sequence[tuple[_Caller, int]], error: InvalidInputError
    ) -> None:
        """Give a fault in one caller's texts to that caller alone, by its number among that caller's texts."""
        if len(items) == 1 == len(items[0][0].texts):  # of others, the error counts texts in the order of the pass
            items[0][0].fail(error)
            return
        for caller in _places(items):
            caller.waiting.clear()
            caller.rows.clear()
            try:
                rows = await self._embed(caller.texts, long_texts)
            except Exception as own:  # noqa: BLE001
                caller.fail(own)
            else:
                caller.add(range(len(rows)), rows)

    def _next(self) -> tuple[LongTexts | None, list[tuple[_Caller, int]]] | None:
        """Return the next pass, of the queue whose first caller has waited longest, or None if nothing waits."""
        for long_texts, queue in list(self._queues.items()):
            callers = [caller for caller in queue if caller.waiting and not caller.done.done()]
            del self._queues[long_texts]
            if not callers:
                continue
            size = min(max(_FEWEST, sum(len(caller.waiting) for caller in callers) // 2), _MOST)
            served, share = callers[:size], max(1, size // len(callers))
            items = [item for caller in served for item in caller.take(share)]
            for caller in served:
                items += caller.take(size - len(items))
            # Those that were served go to the end, so that the others come first in the next pass.
            self._queues[long_texts] = deque(callers[size:] + served)
            items.sort(key=lambda item: len(item[0].texts[item[1]]))
            return long_texts, items
        return None


def _places(items: Sequence[tuple[_Caller, int]]) -> dict[_Caller, list[int]]:
    """Return where each caller's texts are in a pass."""
    places: dict[_Caller, list[int]] = {}
    for place, (caller, _) in enumerate(items):
        places.setdefault(caller, []).append(place)
    return places
