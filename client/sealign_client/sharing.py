"""Rows of concurrent callers in shared ciphertexts, where the plans say that this is cheaper.

Callers that arrive together travel together. While others are under way, a caller waits for one of them to end, unless
all of them are so few that each is cheaper alone. Each caller gets its own rows, and its own errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.errors import DecryptionError, MachineError, SealignError, UnavailableError
from sealign_client.classification_tasks import Ready
from sealign_client.exchange import Matrix

MAX_SHARED_ROWS = 128
"""Rows of one call that may share ciphertexts with others; larger calls fill their own."""

_MOST = 1024
_LANES = 2
"""Exchanges at once while callers wait: one is encrypted or decrypted while the other is at the silo."""

_OF_ALL = (UnavailableError, DecryptionError, MachineError)
"""Errors that asking for each caller alone would not avoid."""


@dataclass(frozen=True, eq=False)
class CheckedRows:
    """Rows that can be sent.

    Attributes:
        ready: the task, and the map that the rows take.
        embeddings: (n, d), as the encoder made them.
        prepared: what is encrypted in their place.
    """

    ready: Ready
    embeddings: NDArray[np.floating]
    prepared: Matrix

    @classmethod
    def of(cls, ready: Ready, embeddings: NDArray[np.floating]) -> CheckedRows:
        """Return embeddings, (n, d), once they are known to be good.

        Raises:
            InvalidInputError: wrong shape, or a row that is not finite or not normalised.
        """
        return cls(ready, embeddings, ready.route.prepared(embeddings, ready.card.plans[0], clip=False))

    def __len__(self) -> int:
        return len(self.prepared)

    def goes_with(self, other: CheckedRows) -> bool:
        """Return whether both are for the same version of a task, through the same map."""
        return self.ready.card is other.ready.card and self.ready.route is other.ready.route


Answer: TypeAlias = tuple[Ready, Matrix]
"""Outputs, (n, outputs), and the head that gave them."""


@dataclass(eq=False)
class _Caller:
    rows: CheckedRows
    done: asyncio.Future[Answer]


@dataclass(eq=False)
class _Line:
    """The callers of one task: exchanges and rows under way, and those who wait."""

    exchanges: int = 0
    rows: int = 0
    waiting: list[_Caller] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Rows under way and waiting."""
        return self.rows + sum(len(caller.rows) for caller in self.waiting)


class Sharing:
    """Asks the silo for the outputs of rows of many callers.

    Args:
        ask: asks for the outputs of rows.
        patience: seconds that a caller waits at most, others before it included.
    """

    def __init__(self, ask: Callable[[CheckedRows], Awaitable[Answer]], patience: float) -> None:
        self._ask = ask
        self._patience = patience
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def outputs(self, rows: CheckedRows) -> Answer:
        """Return the outputs of at most `MAX_SHARED_ROWS` rows.

        Raises:
            UnavailableError: the silo did not answer within the timeout.
            SealignError: as ``ask``.
        """
        line = self._lines.setdefault(rows.ready.card.name, _Line())
        caller = _Caller(rows, asyncio.get_running_loop().create_future())
        line.waiting.append(caller)
        try:
            await asyncio.sleep(0)  # those who arrive together wait together
            if caller in line.waiting and self._goes_alone(line):
                line.waiting.remove(caller)
                return await self._under_way(line, len(rows), self._ask(rows))
            self._serve(line)
            return await asyncio.wait_for(caller.done, self._patience)
        except asyncio.TimeoutError:
            raise UnavailableError(f"The silo did not answer within {self._patience:g} s.") from None
        finally:
            if caller in line.waiting:
                line.waiting.remove(caller)

    def _goes_alone(self, line: _Line) -> bool:
        """Return whether the first caller need not wait, and is cheaper alone."""
        if line.exchanges == 0 and len(line.waiting) == 1:
            return True
        return not line.waiting[0].rows.ready.saves_together(line.total)

    async def _under_way(self, line: _Line, rows: int, asked: Awaitable[Answer]) -> Answer:
        line.exchanges += 1
        line.rows += rows
        try:
            return await asked
        finally:
            line.exchanges -= 1
            line.rows -= rows
            self._serve(line)

    def _serve(self, line: _Line) -> None:
        """Ask for those who wait, if there is a lane: together if that is cheaper, else apart."""
        if line.exchanges >= _LANES or not line.waiting:
            return
        first, taken, total = line.waiting[0].rows, list[_Caller](), 0
        for caller in list(line.waiting):
            if first.goes_with(caller.rows) and total + len(caller.rows) <= _MOST:
                line.waiting.remove(caller)
                taken.append(caller)
                total += len(caller.rows)
        for group in [taken] if first.ready.saves_together(total) else [[caller] for caller in taken]:
            asked = asyncio.ensure_future(self._answer(line, group))
            self._tasks.add(asked)
            asked.add_done_callback(self._tasks.discard)

    async def _answer(self, line: _Line, group: list[_Caller]) -> None:
        """Give each caller its outputs or its error."""
        rows = group[0].rows if len(group) == 1 else _joined([caller.rows for caller in group])
        try:
            ready, outputs = await self._under_way(line, len(rows), self._ask(rows))
        except asyncio.CancelledError:  # the connection is closed
            for caller in group:
                caller.done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to the callers
            if len(group) > 1 and isinstance(error, SealignError) and not isinstance(error, _OF_ALL):
                for caller in group:  # a limit or a budget may be enough for one of them
                    if not caller.done.done():
                        await self._answer(line, [caller])
                return
            for caller in group:
                if not caller.done.done():
                    caller.done.set_exception(error)
            return
        start = 0
        for caller in group:
            if not caller.done.done():
                caller.done.set_result((ready, outputs[start : start + len(caller.rows)]))
            start += len(caller.rows)


def _joined(parts: list[CheckedRows]) -> CheckedRows:
    embeddings, prepared = ([getattr(part, name) for part in parts] for name in ("embeddings", "prepared"))
    return CheckedRows(parts[0].ready, np.concatenate(embeddings), np.concatenate(prepared))
