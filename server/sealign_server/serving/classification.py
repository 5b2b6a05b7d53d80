"""Classification tasks behind kinds of rows: heads fitted to maps, encoded once, served from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from threading import Lock

import numpy as np
import structlog
from numpy.typing import NDArray

from sealign.alignment import MappedChannel
from sealign.ckks import Evaluator, PackingPlan, candidates, product_shape
from sealign.defaults import RECENTRED_NORM
from sealign.errors import InvalidInputError, MachineError, NoPlanError, NotFoundError, SealignError, StalePlanError
from sealign.heads import CalibratedHead, head_behind
from sealign.protocol import RowKind, TaskCard
from sealign_server.serving.cache import FairCache
from sealign_server.serving.heavy import HeavyWork
from sealign_server.serving.space import MappedRows, Space, keyed
from sealign_server.settings import ServingOptions
from sealign_server.store import StoredTask, TaskStore

_log = structlog.get_logger()


@dataclass(frozen=True, eq=False)
class LoadedTask:
    """A version of a task, and a digest of all that heads are made of."""

    name: str
    version: str
    stored: StoredTask
    digest: bytes

    @classmethod
    def load(cls, name: str, version: str, stored: StoredTask) -> LoadedTask:
        """Return the task with its digest."""
        trained = stored.trained
        numbers = [trained.temperature, trained.precision, *(trained.ood[score] for score in sorted(trained.ood))]
        state = sha256(b"sealign task v1\0")
        for label in trained.head.labels:
            state.update(len(label).to_bytes(8, "little") + label.encode("utf-8", "surrogatepass"))
        for array in (trained.head.weight, trained.head.bias, np.array(numbers)):
            state.update(np.ascontiguousarray(array, dtype="<f8").data)
        if stored.profile is not None:
            state.update(stored.profile.digest)
        return cls(name, version, stored, state.digest())

    def behind(self, channel: MappedChannel | None, options: ServingOptions) -> CalibratedHead:
        """Return the head for embeddings that come through a map's channel.

        Where nothing is known of the map, or the task was kept without a profile, it is the silo's trained one.
        """
        trained, profile = self.stored.trained, self.stored.profile
        if profile is None or channel is None:
            return CalibratedHead.unmapped(trained)
        directions = min(options.ood_directions, trained.head.dimension)
        return head_behind(channel, trained.head, profile, directions=directions, fit=options.fit_heads)

    def mean(self, channel: MappedChannel | None) -> NDArray[np.float64]:
        """Return the mean of the task's texts, (d,), as the map predicts them.

        Raises:
            InvalidInputError: it is not known.
        """
        if self.stored.profile is None:
            raise InvalidInputError("the mean of its texts was not kept; train it again to serve recentred rows")
        mean = self.stored.profile.statistics.mean
        return mean if channel is None else channel.expected(mean[None])[0]


@dataclass(frozen=True, eq=False)
class ServedTask:
    """A task behind one kind of rows, as encrypted products for each batch size.

    Attributes:
        task: the version that it was made of.
        calibrated: the head, for mapped embeddings, with what is promised about it.
        is_calibrated: whether that was measured for the map.
        revision: names all that it was made of; workers agree on it, whose floating point may differ in the last place.
        evaluators: by plan.
    """

    task: LoadedTask
    calibrated: CalibratedHead
    is_calibrated: bool
    revision: str
    evaluators: dict[str, Evaluator]

    @classmethod
    def make(cls, task: LoadedTask, mapped: MappedRows, recentred: bool, options: ServingOptions) -> ServedTask:
        """Fit, compose and encode.

        Raises:
            InvalidInputError: the map does not fit the head, or there is no plan for their product.
        """
        calibrated = task.behind(mapped.channel, options)
        intercept = task.mean(mapped.channel) if recentred else mapped.intercept
        weight = np.eye(len(intercept)) if mapped.weight is None else mapped.weight
        head = calibrated.head.composed(weight, intercept)
        # Rows of the silo's map centred on the mean of some are at most twice as long; a client's are centred anyway.
        row_norm = mapped.row_norm * (RECENTRED_NORM if recentred and mapped.weight is not None else 1.0)
        layout = calibrated.head.layout
        shape = f"{recentred}\0{layout.outputs}\0{layout.reject}\0{layout.directions}\0{options.fit_heads}"
        made_of = sha256(b"\0".join((b"sealign served task v1", shape.encode(), task.digest, mapped.key)))
        # A head whose labels are close together needs finer logits than the operator asks for.
        precision = min(options.precision, calibrated.precision)
        evaluators = {}
        for rows in options.batch_rows:
            wanted = product_shape(head.weight, head.bias, rows=rows, precision=precision, row_norm=row_norm)
            plan = candidates(wanted, options.security_table, max_bytes=options.batch_bytes)[0]
            evaluators[plan.id] = Evaluator(plan, head.weight, head.bias)
        known = mapped.channel is not None and task.stored.profile is not None
        return cls(task, calibrated, known, made_of.hexdigest()[:32], evaluators)

    @property
    def byte_count(self) -> int:
        """Memory of the encoded weights."""
        return sum(evaluator.plan.cost.weight_bytes for evaluator in self.evaluators.values())

    @property
    def plans(self) -> tuple[PackingPlan, ...]:
        """The plans that clients may use."""
        return tuple(evaluator.plan for evaluator in self.evaluators.values())


@dataclass(frozen=True)
class _LeftOut:
    """A task that cannot be served to rows of a kind; the log says why."""

    task: LoadedTask


class Classification:
    """All tasks, for all identities.

    Args:
        tasks: their files.
        space: of the silo's encoder.
        heavy: where heads are fitted.
        options: batch sizes, precision, memory.
    """

    def __init__(self, tasks: TaskStore, space: Space, heavy: HeavyWork, options: ServingOptions) -> None:
        self._store = tasks
        self._space = space
        self._heavy = heavy
        self._options = options
        self._loaded: dict[str, LoadedTask] = {}
        self._loading = Lock()
        self._served: FairCache[ServedTask | _LeftOut] = FairCache(options.heads_bytes)

    def names(self) -> list[str]:
        """Return the names of the tasks, sorted."""
        return self._store.names()

    def cards(self) -> list[TaskCard]:
        """Return the tasks without plans; one that cannot be read is logged and left out."""
        return [_card(task, None) for task in self._tasks()]

    async def describe(self, identity: str, rows: RowKind) -> list[TaskCard]:
        """Return the tasks for rows of a kind that an identity sends; fits heads that nobody has asked for here.

        Raises:
            NoMapError, UnknownMapError, NotFoundError: as `Space.mapped`.
            OverloadedError: the identity has too much waiting.
        """
        tasks = await asyncio.to_thread(self._tasks)
        missing = [task for task in tasks if self._found(identity, task, rows) is None]
        if missing or not self._holds(identity, rows):
            await self._heavy.do(identity, partial(self._prepare, identity, missing, rows))
        found = [(task, self._found(identity, task, rows)) for task in tasks]
        return [_card(task, served if isinstance(served, ServedTask) else None) for task, served in found]

    def evaluator(self, identity: str, task: str, rows: RowKind, plan: str, revision: str) -> Evaluator:
        """Return the evaluator that a query asks for, of what this process holds: see :meth:`catch_up`.

        Raises:
            NotFoundError: there is no such task.
            NoMapError: the identity may use no such map.
            StalePlanError: head, map or plan have changed since the client asked, or this process knows nothing yet.
            NoPlanError: the task cannot be served to such rows.
        """
        if not self._store.holds(task):
            known = ", ".join(self._store.names()) or "none"
            raise NotFoundError(f"there is no task {task[:64]!r} here; tasks are: {known}")
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
        if loaded is not None and self._found(identity, loaded, rows) is None:
            await self._heavy.do(identity, partial(self._prepare, identity, [loaded], rows))

    def _prepare(self, identity: str, tasks: Sequence[LoadedTask], rows: RowKind) -> None:
        """Fit, plan and publish each task's head; one that cannot be served is left out and the log says why."""
        mapped = self._space.mapped(identity, rows)
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
            if known is None or known.version != version:
                try:
                    self._loaded[name] = LoadedTask.load(name, version, self._store.load(name))
                except SealignError as error:
                    _log.error("task not read; an earlier version stays", task=name, reason=str(error))
            return self._loaded.get(name)


def _card(task: LoadedTask, served: ServedTask | None) -> TaskCard:
    """Return what a client is told about a task; without plans where it is not served to the client's rows."""
    stored = task.stored
    card = TaskCard(
        name=task.name,
        description=stored.description or "",
        labels=stored.trained.head.labels,
        temperature=1.0,  # it is divided out of every head
        held_out_accuracy=stored.trained.held_out_accuracy,
        ood_thresholds=dict(stored.trained.ood),
        plans=(),
        revision="",
    )
    if served is None:
        return card
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
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, SealignError | MachineError) else type(error).__name__
