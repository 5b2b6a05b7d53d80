"""What the silo does, without sockets: compose maps and heads, plan, evaluate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

import structlog

from sealign.alignment import AffineMap
from sealign.ckks import Evaluator, PackingPlan, candidates, product_shape
from sealign.encoders import EncoderCard
from sealign.errors import NoMapError, NotFoundError, SealignError, StalePlanError
from sealign.heads import LinearHead, TrainedHead, calibrate
from sealign.protocol import MapCard, SiloCard, TaskCard
from sealign_server.alignment import AlignmentSession
from sealign_server.settings import ServeSettings
from sealign_server.store import CalibrationRows, SiloStore, TaskDocument

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Task:
    name: str
    document: TaskDocument
    trained: TrainedHead
    calibration: CalibrationRows | None

    def behind(self, learned: AffineMap) -> TrainedHead:
        """The head with the temperature and thresholds that hold for embeddings which the map predicts."""
        if self.calibration is None or learned.channel is None:
            return self.trained
        return calibrate(self.trained.head, learned.channel.apply(self.calibration.embeddings), self.calibration.labels)


class EncryptedHead:
    """A task's head behind one encoder's map: one encrypted product, planned for each batch size."""

    def __init__(self, head: LinearHead, settings: ServeSettings) -> None:
        self.revision = sha256(head.weight.tobytes() + head.bias.tobytes() + repr(head.labels).encode()).hexdigest()[
            :16
        ]
        self._evaluators: dict[str, Evaluator] = {}
        for rows in settings.batch_rows:
            shape = product_shape(head.weight, head.bias, rows=rows, precision=settings.precision)
            limit = settings.max_batch_weights_mb << 20
            plan = candidates(shape, settings.security_table, max_weight_bytes=limit)[0]
            self._evaluators[plan.id] = Evaluator(plan, head.weight, head.bias)

    @property
    def plans(self) -> tuple[PackingPlan, ...]:
        """The plans that clients may use."""
        return tuple(evaluator.plan for evaluator in self._evaluators.values())

    def evaluator(self, plan: str, revision: str) -> Evaluator:
        """The evaluator of a plan.

        Raises:
            StalePlanError: head, map or plan have changed since the client asked.
        """
        evaluator = self._evaluators.get(plan)
        if evaluator is None or revision != self.revision:
            raise StalePlanError("the task has changed since it was described; describe it and encrypt again")
        return evaluator


@dataclass(frozen=True)
class _Service:
    """A task behind one encoder's map: the head as calibrated for mapped embeddings, and its products."""

    calibrated: TrainedHead
    encrypted: EncryptedHead


class Silo:
    """A silo's tasks, served to every encoder that has a map.

    Maps and heads are read from the store; :meth:`refresh` picks up what other processes have written.
    """

    def __init__(self, store: SiloStore, settings: ServeSettings) -> None:
        self._store = store
        self._settings = settings
        self._tasks: dict[str, _Task] = {}
        self._maps: dict[str, AffineMap] = {}
        self._services: dict[tuple[str, str], _Service] = {}
        self._versions: dict[Path, int] = {}
        self._refreshing = Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read tasks and maps that are new or have changed on disk."""
        with self._refreshing:
            self._refresh()

    def _refresh(self) -> None:
        for name in self._store.task_names():
            if self._changed(self._store.directory / "tasks" / name / "head.safetensors"):
                self._tasks[name] = _Task(name, *self._store.load_task(name), self._store.load_calibration(name))
                self._compose(self._maps, [name])
        for fingerprint in self._store.map_fingerprints():
            if self._changed(self._store.map_path(fingerprint)):
                try:
                    self._maps[fingerprint] = self._store.load_map(fingerprint)
                except SealignError as error:
                    _log.error("map left out", encoder=fingerprint[:12], reason=str(error))
                    continue
                self._compose([fingerprint], self._tasks)

    def describe(self, encoder: str) -> SiloCard:
        """What the silo offers to an encoder, named by fingerprint; empty for tasks without plans."""
        self.refresh()
        learned = self._maps.get(encoder)
        return SiloCard(
            name=self._store.document.name,
            tasks=tuple(self._task_card(task, encoder) for task in self._tasks.values()),
            public_sets=tuple(self._store.public_sets()),
            map=None if learned is None else _map_card(learned),
        )

    def evaluator(self, task: str, encoder: str, plan: str, revision: str) -> Evaluator:
        """The evaluator that a query asks for.

        Raises:
            NotFoundError: there is no such task.
            NoMapError: no map has been learned for the encoder.
            StalePlanError: head, map or plan have changed since the client asked.
        """
        if task not in self._tasks or encoder not in self._maps:
            self.refresh()  # another worker may have learned it
        if task not in self._tasks:
            known = ", ".join(self._tasks) or "none"
            raise NotFoundError(f"there is no task {task[:64]!r} here; tasks are: {known}")
        if encoder not in self._maps:
            sets = ", ".join(f"{s.name} ({s.digest[:12]}…)" for s in self._store.public_sets()) or "none"
            raise NoMapError(
                f"no map has been learned for encoder {encoder[:12]!r}…; align first (sealign align --public FILE) "
                f"over a public set that the silo holds: {sets}"
            )
        try:
            return self._head(task, encoder).evaluator(plan, revision)
        except StalePlanError:
            self.refresh()  # the client may have described the task at a worker that knew more
            return self._head(task, encoder).evaluator(plan, revision)

    def alignment(self, encoder: EncoderCard, public_set: str, rows: int) -> AlignmentSession:
        """A run of plain alignment for an encoder (see :class:`AlignmentSession`)."""
        return AlignmentSession(self._store, encoder, public_set, rows)

    def _head(self, task: str, encoder: str) -> EncryptedHead:
        service = self._services.get((task, encoder))
        if service is None:
            raise StalePlanError(f"task {task} cannot be served to this encoder at present; the silo's log says why")
        return service.encrypted

    def _compose(self, encoders: Iterable[str], tasks: Iterable[str]) -> None:
        for encoder in encoders:
            learned = self._maps[encoder]
            for task in tasks:
                self._services.pop((task, encoder), None)
                try:
                    calibrated = self._tasks[task].behind(learned)
                    composed = calibrated.head.composed(learned.weight, learned.intercept)
                    self._services[task, encoder] = _Service(calibrated, EncryptedHead(composed, self._settings))
                except SealignError as error:
                    _log.error("task left out for an encoder", task=task, encoder=encoder[:12], reason=str(error))

    def _task_card(self, task: _Task, encoder: str) -> TaskCard:
        service = self._services.get((task.name, encoder))
        calibrated = task.trained if service is None else service.calibrated
        return TaskCard(
            name=task.name,
            description=task.document.description,
            labels=task.trained.head.labels,
            temperature=calibrated.temperature,
            held_out_accuracy=task.trained.held_out_accuracy,
            ood_thresholds=dict(calibrated.ood),
            plans=() if service is None else service.encrypted.plans,
            revision="" if service is None else service.encrypted.revision,
        )

    def _changed(self, path: Path) -> bool:
        version = path.stat().st_mtime_ns
        changed = self._versions.get(path) != version
        self._versions[path] = version
        return changed


def _map_card(learned: AffineMap) -> MapCard:
    quality = learned.quality
    return MapCard(
        encoder=learned.source_fingerprint,
        public_set=learned.public_set,
        rows=quality.rows,
        penalty=quality.penalty,
        explained_variance=quality.explained_variance,
        mean_cosine=quality.mean_cosine,
        linear_cka=quality.linear_cka,
        created=learned.created,
    )
