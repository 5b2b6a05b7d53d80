"""Canaries: rows of public texts among the rows of a client, whose answers the client knows.

The silo sees ciphertexts and cannot tell them apart. Of several rows, canaries stand at random places among them. A row
that is asked about alone gets no company: now and then a canary is asked about alone as well, after a pause like those
between the calls before.
"""

from __future__ import annotations

import asyncio
import secrets
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.errors import BudgetExhaustedError, InvalidInputError, SealignError, WrongAnswersError
from sealign_client.classification_tasks import Progress, Ready
from sealign_client.local.canaries import Baseline, CanaryStore
from sealign_client.results import CanaryReport
from sealign_client.session import Session
from sealign_client.sharing import Answer, CheckedRows

Ask: TypeAlias = Callable[[CheckedRows], Awaitable[Answer]]
Numbers: TypeAlias = NDArray[np.intp]

_LONGEST_PAUSE = 60.0
_PAUSES = 32
_RANDOM = secrets.SystemRandom()


@dataclass(eq=False)
class _Watched:
    """Canaries of one version of a task, as they are encrypted for it."""

    ready: Ready
    embeddings: NDArray[np.float32]
    prepared: NDArray[np.float64]
    baseline: Baseline

    def rows(self, numbers: Numbers) -> CheckedRows:
        return CheckedRows(self.ready, self.embeddings[numbers], self.prepared[numbers])


class Canaries:
    """Mixes canaries among rows, and compares their answers.

    Args:
        session: with the silo.
        store: their rows and what was answered.
        share: of the rows that are asked about; 0 for no canaries.
        refuses: whether an alarm is an error.
    """

    def __init__(self, session: Session, store: CanaryStore, share: float, *, refuses: bool) -> None:
        self._session = session
        self._store = store
        self._share = share
        self._refuses = refuses
        self._watched: dict[str, _Watched] = {}
        self._called: float | None = None
        self._pauses: deque[float] = deque(maxlen=_PAUSES)
        self._alone: set[asyncio.Task[None]] = set()

    async def asked(self, given: CheckedRows, ask: Ask) -> Answer:
        """Return the answer to rows, canaries among them or not.

        Raises:
            InvalidInputError: no public texts are known for this encoder.
            WrongAnswersError: the silo does not answer as at first, and that is an error.
            SealignError: as ``ask``.
        """
        if not self._share:
            return await ask(given)
        watched = await self._watch(given.ready)
        self._require_right(watched)
        self._note_call()
        unknown = watched.baseline.unknown
        if len(given) == 1 and not len(unknown):
            if _RANDOM.random() < self._share:
                self._ask_later(watched, ask)
            return await ask(given)
        chosen = unknown if len(unknown) else self._drawn(len(given), len(watched.prepared))
        if not len(chosen):
            return await ask(given)
        places = np.array(_RANDOM.sample(range(len(given) + len(chosen)), len(chosen)), dtype=np.intp)
        try:
            ready, outputs = await ask(_mixed(given, watched.rows(chosen), places))
        except BudgetExhaustedError:
            return await ask(given)  # without canaries it may be enough
        await self._compare(ready, chosen, outputs[places])
        self._require_right(await self._watch(ready))
        return ready, np.delete(outputs, places, axis=0)

    async def reports(self) -> list[CanaryReport]:
        """Return what is known of the tasks that were asked about, in this process or another."""
        return await self._session.run(self._store.reports)

    def close(self) -> None:
        """Give up canaries that were to be asked about later."""
        for task in self._alone:
            task.cancel()

    async def _watch(self, ready: Ready) -> _Watched:
        """Return the canaries of the version of a task that is ready."""
        held = self._watched.get(ready.card.name)
        if held is None or held.ready.card is not ready.card or held.ready.route is not ready.route:
            held = self._watched[ready.card.name] = await self._session.run(self._load, ready)
        return held

    def _load(self, ready: Ready) -> _Watched:
        rows = self._store.rows(ready.route.kind.encoder)
        if rows is None:
            raise InvalidInputError(
                "There are no canaries yet: they are drawn from the public texts of an alignment. Align with this "
                "encoder, or set canaries to 0."
            )
        card = ready.card
        prepared = CheckedRows.of(ready, rows).prepared
        return _Watched(
            ready, rows, prepared, self._store.baseline(card.name, card.revision, prepared, card.layout.outputs)
        )

    async def _compare(self, ready: Ready, numbers: Numbers, outputs: NDArray[np.float64]) -> None:
        """Compare answers with the first ones, or keep them as such, and warn if they are wrong."""
        watched = await self._watch(ready)
        before = watched.baseline.tally
        tolerance = max(plan.precision for plan in ready.card.plans)
        watched.baseline = watched.baseline.with_answers(numbers, outputs, tolerance)
        await self._session.run(self._store.keep, watched.baseline, watched.prepared)
        tally = watched.baseline.tally
        if tally.wrong > before.wrong:
            alarm = f" Confidence {tally.confidence:.6f}: its answers have changed." if tally.is_alarm else ""
            warnings.warn(
                f"The silo answered {tally.wrong} of {tally.compared} canaries of task {watched.baseline.task!r} "
                f"otherwise than at first, under the same revision.{alarm} Ask its operator.",
                stacklevel=2,
            )

    def _require_right(self, watched: _Watched) -> None:
        tally = watched.baseline.tally
        if self._refuses and tally.is_alarm:
            raise WrongAnswersError(
                f"The silo answers task {watched.baseline.task!r} otherwise than at first, under the same revision: "
                f"{tally.wrong} of {tally.compared} canaries, confidence {tally.confidence:.6f}. Ask its operator. If "
                "the change is explained, accept it: sealign canaries forget"
            )

    def _drawn(self, rows: int, canaries: int) -> Numbers:
        """Return which canaries go with so many rows: as many as if each row had one by chance."""
        count = sum(_RANDOM.random() < self._share for _ in range(rows))
        return np.array([_RANDOM.randrange(canaries) for _ in range(count)], dtype=np.intp)

    def _note_call(self) -> None:
        now = monotonic()
        if self._called is not None:
            self._pauses.append(min(now - self._called, _LONGEST_PAUSE))
        self._called = now

    def _ask_later(self, watched: _Watched, ask: Ask) -> None:
        pause = _RANDOM.choice(self._pauses) if self._pauses else _RANDOM.random()
        number = np.array([_RANDOM.randrange(len(watched.prepared))], dtype=np.intp)

        async def later() -> None:
            await asyncio.sleep(pause)
            with suppress(SealignError):  # nobody waits for it
                ready, outputs = await ask(watched.rows(number))
                await self._compare(ready, number, outputs)

        task = asyncio.ensure_future(later())
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)


def _mixed(given: CheckedRows, canaries: CheckedRows, places: Sequence[int] | Numbers) -> CheckedRows:
    """Return rows with canaries at some places among them."""
    total = len(given) + len(canaries)
    others = np.delete(np.arange(total), places)

    def mixed(one: NDArray[np.floating], two: NDArray[np.floating]) -> NDArray[np.floating]:
        made = np.empty((total, one.shape[1]), dtype=one.dtype)
        made[others], made[places] = one, two
        return made

    prepared = mixed(given.prepared, canaries.prepared).astype(np.float64, copy=False)
    return replace(given, embeddings=mixed(given.embeddings, canaries.embeddings), prepared=prepared)


def at_most(rows: int, progress: Progress) -> Progress:
    """Return a progress that tells of no more rows than the caller has, whatever goes with them."""
    left = rows

    def told(count: int) -> None:
        nonlocal left
        counted, left = min(count, left), max(0, left - count)
        if counted:
            progress(counted)

    return told
