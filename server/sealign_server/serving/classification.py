"""Classification tasks behind kinds of rows: heads fitted to maps, encoded once, served from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from threading import Lock

import numpy as np
import structlog

from sealign.ckks import Evaluator
from sealign.errors import MachineError, NoPlanError, NotFoundError, SealignError, StalePlanError
from sealign.protocol import RowKind, TaskCard
from sealign_server.serving.cache import FairCache
from sealign_server.serving.heavy import HeavyWork
from sealign_server.serving.served_tasks import LoadedTask, ServedTask, unservable
from sealign_server.serving.space import MappedRows, Space, keyed
from sealign_server.settings import ServingOptions
from sealign_server.store import TaskStore

_log = structlog.get_logger()


@dataclass(frozen=True)
class _LeftOut:
    """A task that cannot be served to rows of a kind; the log says why."""

    task: LoadedTask


class Classification:
    """All tasks, for all identities.

    Heads are fitted beside the calls that ask for them, those of large tasks in a thread of their own: a call waits for
    a while, and is answered with what is ready.

    Args:
        tasks: their files.
        space: of the silo's encoder.
        heavy: where heads are fitted.
        long: where heads of large tasks are fitted.
        options: batch sizes, precision, memory.
    """

    def __init__(
        self, tasks: TaskStore, space: Space, heavy: HeavyWork, long: HeavyWork, options: ServingOptions
    ) -> None:
        self._store = tasks
        self._space = space
        self._heavy = heavy
        self._long = long
        self._options = options
        self._loaded: dict[str, LoadedTask] = {}
        self._unread: dict[str, tuple[str, str]] = {}
        self._checked: dict[str, tuple[str, str | None]] = {}
        self._loading = Lock()
        self._served: FairCache[ServedTask | _LeftOut] = FairCache(options.heads_bytes)
        self._under_way: dict[Hashable, asyncio.Future[None]] = {}

    def names(self) -> list[str]:
        """Return the names of the tasks, sorted."""
        return self._store.names()

    def cards(self) -> list[TaskCard]:
        """Return the tasks without plans; one that cannot be read is logged and left out."""
        return [_described(task) for task in self._tasks()]

    def faults(self) -> dict[str, str]:
        """Return why tasks can be served to nobody, by name; what is new is read."""
        for name in self._store.names():
            task = self._task(name)
            if task is not None and self._checked.get(name, ("", None))[0] != task.version:
                self._checked[name] = task.version, unservable(task, self._options)
        found = {name: self._fault(name) for name in self._store.names()}
        return {name: reason for name, reason in found.items() if reason is not None}

    async def describe(
        self, identity: str, rows: RowKind, names: Collection[str] | None = None, seconds: float = inf
    ) -> list[TaskCard]:
        """Return the tasks for rows of a kind that an identity sends; fits heads that nobody has asked for here.

        Args:
            identity: who asks.
            rows: the kind.
            names: of the tasks to describe; by default all.
            seconds: to wait at most for heads of large tasks; their cards then say that they are being prepared.

        Raises:
            NoMapError, UnknownMapError, NotFoundError: as `Space.mapped`.
            OverloadedError: the identity has too much waiting.
        """
        tasks = await asyncio.to_thread(self._tasks)
        tasks = [task for task in tasks if names is None or task.name in names]
        missing = [task for task in tasks if self._found(identity, task, rows) is None]
        if missing or not self._holds(identity, rows):
            large = [task for task in missing if task.is_large]
            small = [task for task in missing if not task.is_large]
            waits = [self._wait_for(identity, small, rows, inf)]
            if large:
                waits.append(self._wait_for(identity, large, rows, seconds))
            await asyncio.gather(*waits)
        return [_card(task, self._found(identity, task, rows)) for task in tasks]

    def require(self, task: str) -> None:
        """Refuse a task that is not there.

        Raises:
            NotFoundError: there is no such task.
            NoPlanError: it is damaged, as far as is known here.
        """
        if not self._store.holds(task):
            known = ", ".join(self._store.names()) or "none"
            raise NotFoundError(f"there is no task {task[:64]!r} here; tasks are: {known}")
        if task not in self._loaded and self._unread.get(task, ("", ""))[0] == self._store.version(task):
            raise NoPlanError(f"task {task} cannot be served at present; the silo's log says why")

    def evaluator(self, identity: str, task: str, rows: RowKind, plan: str, revision: str) -> Evaluator:
        """Return the evaluator that a query asks for, of what this process holds: see :meth:`catch_up`.

        Raises:
            NotFoundError: there is no such task.
            NoMapError: the identity may use no such map.
            StalePlanError: head, map or plan have changed since the client asked, or this process knows nothing yet.
            NoPlanError: the task cannot be served to such rows.
        """
        self.require(task)
        if not self._holds(identity, rows):
            self._space.mapped(identity, rows)  # says what is missing
        served = self._held(identity, task, rows)
        if isinstance(served, _LeftOut):
            raise NoPlanError(f"task {task} cannot be served to such rows at present; the silo's log says why")
        evaluator = None if served is None or served.revision != revision else served.evaluators.get(plan)
        if evaluator is None:
            raise StalePlanError("the task has changed since it was described; describe it and encrypt again")
        return evaluator

    async def catch_up(self, identity: str, task: str, rows: RowKind) -> None:
        """Read what other processes have written about a task, and fit its head for rows of a kind.

        Raises:
            NotFoundError, NoMapError, UnknownMapError: as :meth:`describe`.
        """
        loaded = await asyncio.to_thread(self._task, task)
        self.require(task)
        if loaded is not None and self._found(identity, loaded, rows) is None:
            await self._wait_for(identity, [loaded], rows, inf)

    async def _wait_for(self, identity: str, tasks: Sequence[LoadedTask], rows: RowKind, seconds: float) -> None:
        """Have heads fitted, or join those who wait for them already, and wait so long; who leaves stops nothing."""
        wanted = identity, keyed(rows), tuple((task.name, task.version) for task in tasks)
        work = self._under_way.get(wanted)
        if work is None:
            work = self._under_way[wanted] = asyncio.ensure_future(self._prepare_all(identity, tasks, rows))
            work.add_done_callback(lambda done: self._ended(wanted, done))
        await asyncio.wait([work], timeout=None if seconds == inf else seconds)
        if work.done():
            work.result()

    async def _prepare_all(self, identity: str, tasks: Sequence[LoadedTask], rows: RowKind) -> None:
        """Prepare small tasks together; large ones in a thread of their own, one by one, the smallest first."""
        mapped = await self._heavy.do(identity, partial(self._space.mapped, identity, rows))
        small = [task for task in tasks if not task.is_large]
        if small:
            await self._heavy.do(identity, partial(self._prepare, identity, small, mapped, rows))
        for task in sorted((task for task in tasks if task.is_large), key=lambda task: task.size):
            await self._long.do(identity, partial(self._prepare, identity, [task], mapped, rows))

    def _ended(self, wanted: Hashable, work: asyncio.Future[None]) -> None:
        del self._under_way[wanted]
        error = None if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, SealignError):  # those are told to whoever waits or asks again
            _log.error("heads not prepared", reason=_reason(error))

    def _prepare(self, identity: str, tasks: Sequence[LoadedTask], mapped: MappedRows, rows: RowKind) -> None:
        """Fit, plan and publish each task's head; one that cannot be served is left out and the log says why."""
        for task in tasks:
            if self._found(identity, task, rows) is not None:
                continue
            result: ServedTask | _LeftOut
            try:
                result = ServedTask.make(task, mapped, rows.recentred, self._options)
                size = result.byte_count
            except (SealignError, np.linalg.LinAlgError) as error:
                named = mapped.owner or "everybody"
                _log.error(
                    "task left out", task=task.name, owner=named, recentred=rows.recentred, reason=_reason(error)
                )
                result, size = _LeftOut(task), 1
            self._served.put(mapped.owner, (task.name, keyed(rows)), result, size)
            if mapped.fitted is not None and self._store.version(task.name) is None:
                mapped.fitted.remove(task.name)  # the task was removed meanwhile

    def _found(self, identity: str, task: LoadedTask, rows: RowKind) -> ServedTask | _LeftOut | None:
        """Return what is held of this version of a task."""
        held = self._held(identity, task.name, rows)
        return held if held is not None and held.task.version == task.version else None

    def _held(self, identity: str, task: str, rows: RowKind) -> ServedTask | _LeftOut | None:
        for owner in self._space.owners(identity, rows):
            held = self._served.get(owner, (task, keyed(rows)))
            if held is not None:
                return held
        return None

    def _holds(self, identity: str, rows: RowKind) -> bool:
        return any(self._space.is_held(owner, rows) for owner in self._space.owners(identity, rows))

    def _tasks(self) -> list[LoadedTask]:
        return [task for task in map(self._task, self._store.names()) if task is not None]

    def _task(self, name: str) -> LoadedTask | None:
        """Return the current version of a task, or an earlier one where that cannot be read; None if there is none."""
        with self._loading:
            version = self._store.version(name)
            if version is None:
                self._loaded.pop(name, None)
                return None
            known = self._loaded.get(name)
            if (known is None or known.version != version) and self._unread.get(name, ("", ""))[0] != version:
                try:
                    self._loaded[name] = LoadedTask.load(name, version, self._store.load(name))
                except SealignError as error:
                    self._unread[name] = version, str(error)
                    _log.error("task not read; an earlier version stays", task=name, reason=str(error))
            return self._loaded.get(name)

    def _fault(self, name: str) -> str | None:
        if name in self._loaded:
            return self._checked.get(name, ("", None))[1]
        return self._unread.get(name, ("", None))[1]


def _described(task: LoadedTask) -> TaskCard:
    """Return what anybody is told about a task."""
    stored = task.stored
    return TaskCard(
        name=task.name,
        description=stored.description or "",
        labels=stored.trained.head.labels,
        temperature=1.0,  # it is divided out of every head
        held_out_accuracy=stored.trained.held_out_accuracy,
        ood_thresholds=dict(stored.trained.ood),
        plans=(),
        revision="",
    )


def _card(task: LoadedTask, served: ServedTask | _LeftOut | None) -> TaskCard:
    """Return what a client is told about a task for its rows; without plans where it is not served to them."""
    card = _described(task)
    if not isinstance(served, ServedTask):
        return replace(card, preparing=served is None)
    layout = served.calibrated.head.layout
    return replace(
        card,
        ood_thresholds=dict(served.calibrated.ood),
        plans=served.plans,
        revision=served.revision,
        reject=layout.reject,
        directions=layout.directions,
        mapped_accuracy=served.calibrated.accuracy,
        mapped_accuracy_margin=served.calibrated.margin,
        calibrated=served.is_calibrated,
        kept=served.calibrated.kept,
    )


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, SealignError | MachineError) else type(error).__name__
