"""What the silo does, without sockets: compose maps and heads, plan, evaluate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from math import ceil, log2
from pathlib import Path
from threading import Lock

import numpy as np
import structlog

from sealign.alignment import AffineMap
from sealign.ckks import Evaluator, PackingPlan, candidates, product_shape
from sealign.encoders import EncoderCard
from sealign.errors import NoMapError, NotFoundError, SealignError, StalePlanError
from sealign.heads import LinearHead, TrainedHead
from sealign.protocol import MapCard, Placement, QuerySource, SiloCard, TaskCard
from sealign_server.alignment import AlignmentSession
from sealign_server.encrypted_alignment import EncryptedAlignment
from sealign_server.releases import ReleaseLedger
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore, TaskDocument

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Task:
    name: str
    document: TaskDocument
    trained: TrainedHead


class EncryptedHead:
    """A task's head behind one encoder's map: one encrypted product, planned for each batch size.

    Args:
        head: takes the rows that clients encrypt.
        settings: batch sizes, precision, memory.
        row_norm: largest norm of such a row.
    """

    def __init__(self, head: LinearHead, settings: ServeSettings, row_norm: float = 1.0) -> None:
        self.revision = sha256(head.weight.tobytes() + head.bias.tobytes() + repr(head.labels).encode()).hexdigest()[
            :16
        ]
        self._evaluators: dict[str, Evaluator] = {}
        for rows in settings.batch_rows:
            shape = product_shape(head.weight, head.bias, rows=rows, precision=settings.precision, row_norm=row_norm)
            limit = settings.max_batch_weights_mb << 20
            plan = candidates(shape, settings.security_table, max_bytes=limit)[0]
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


class Silo:
    """A silo's tasks, served to every encoder that has a map, and to clients that apply a map themselves.

    Maps and heads are read from the store; :meth:`refresh` picks up what other processes have written.
    """

    def __init__(self, store: SiloStore, settings: ServeSettings) -> None:
        self._store = store
        self._settings = settings
        self._tasks: dict[str, _Task] = {}
        self._maps: dict[str, AffineMap] = {}
        self._heads: dict[tuple[str, QuerySource], EncryptedHead] = {}
        self._ledger = ReleaseLedger(store.releases_path, settings.max_releases)
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
                self._tasks[name] = _Task(name, *self._store.load_task(name))
                self._heads = {key: head for key, head in self._heads.items() if key[0] != name}
                self._compose(self._maps, [name])
        for fingerprint in self._store.map_fingerprints():
            if self._changed(self._store.map_path(fingerprint)):
                try:
                    self._maps[fingerprint] = self._store.load_map(fingerprint)
                except SealignError as error:
                    _log.error("map left out", encoder=fingerprint[:12], reason=str(error))
                    continue
                self._compose([fingerprint], self._tasks)

    def describe(self, source: QuerySource) -> SiloCard:
        """What the silo offers to queries from ``source``.

        Raises:
            NotFoundError: client placement over a public set that the silo does not hold.
        """
        self.refresh()
        learned = self._maps.get(source.encoder) if source.placement is Placement.SILO else None
        self._prepare(source)
        return SiloCard(
            name=self._store.document.name,
            tasks=tuple(self._task_card(task, source) for task in self._tasks.values()),
            public_sets=tuple(self._store.public_sets()),
            map=None if learned is None else MapCard.of(learned),
            encoder=self._store.document.encoder_card.fingerprint,
            dimension=self._store.document.encoder_card.dimension,
        )

    def evaluator(self, task: str, source: QuerySource, plan: str, revision: str) -> Evaluator:
        """The evaluator that a query asks for.

        Raises:
            NotFoundError: there is no such task or public set.
            NoMapError: no map has been learned for the encoder.
            StalePlanError: head, map or plan have changed since the client asked.
        """
        at_silo = source.placement is Placement.SILO
        if task not in self._tasks or (at_silo and source.encoder not in self._maps):
            self.refresh()  # another worker may have learned it
        if task not in self._tasks:
            known = ", ".join(self._tasks) or "none"
            raise NotFoundError(f"there is no task {task[:64]!r} here; tasks are: {known}")
        if at_silo and source.encoder not in self._maps:
            sets = ", ".join(f"{s.name} ({s.digest[:12]}…)" for s in self._store.public_sets()) or "none"
            raise NoMapError(
                f"no map has been learned for encoder {source.encoder[:12]!r}…; align first (sealign align --public "
                f"FILE) over a public set that the silo holds: {sets}"
            )
        try:
            return self._head(task, source).evaluator(plan, revision)
        except StalePlanError:
            self.refresh()  # the client may have described the task at a worker that knew more
            self._prepare(source)
            return self._head(task, source).evaluator(plan, revision)

    def alignment(self, encoder: EncoderCard, public_set: str, rows: int) -> AlignmentSession:
        """A run of plain alignment for an encoder (see :class:`AlignmentSession`)."""
        return AlignmentSession(self._store, encoder, public_set, rows)

    def encrypted_alignment(self, encoder: EncoderCard, public_set: str, rows: int, client: str) -> EncryptedAlignment:
        """A run of encrypted alignment for an encoder (see :class:`EncryptedAlignment`)."""
        return EncryptedAlignment(self._store, self._ledger, self._settings, encoder, public_set, rows, client)

    def _head(self, task: str, source: QuerySource) -> EncryptedHead:
        served = self._heads.get((task, _key(source)))
        if served is None:
            raise StalePlanError(f"task {task} is not served to this encoder; describe it again, or see the silo's log")
        return served

    def _compose(self, encoders: Iterable[str], tasks: Iterable[str]) -> None:
        for encoder in encoders:
            learned = self._maps[encoder]
            for task in tasks:
                composed = self._tasks[task].trained.head.composed(learned.weight, learned.intercept)
                self._serve(task, QuerySource(encoder), composed)

    def _prepare(self, source: QuerySource) -> None:
        """Make heads for rows that the client has mapped, when somebody first asks for them.

        Such rows are centred: their mean, which stays here, is that of the silo's embeddings of the public set.
        """
        key = _key(source)
        with self._refreshing:
            missing = [task for task in self._tasks if (task, key) not in self._heads]
            if source.placement is Placement.SILO or not missing:
                return
            public = self._store.load_public_set(source.public_set).rows.astype(np.float64)
            longest = float(np.linalg.norm(public, axis=1).max())
            # A centred embedding is at most twice as long as the longest one.
            row_norm = 2.0 ** (1 + ceil(log2(longest) - 1e-3))
            for task in missing:
                centred = self._tasks[task].trained.head.composed(np.eye(public.shape[1]), public.mean(axis=0))
                self._serve(task, key, centred, row_norm)

    def _serve(self, task: str, source: QuerySource, head: LinearHead, row_norm: float = 1.0) -> None:
        self._heads.pop((task, source), None)
        try:
            self._heads[task, source] = EncryptedHead(head, self._settings, row_norm)
        except SealignError as error:
            whose = (source.encoder or source.public_set)[:12]
            _log.error("task left out", task=task, source=whose, reason=str(error))

    def _task_card(self, task: _Task, source: QuerySource) -> TaskCard:
        served = self._heads.get((task.name, _key(source)))
        return TaskCard(
            name=task.name,
            description=task.document.description,
            labels=task.trained.head.labels,
            temperature=task.trained.temperature,
            held_out_accuracy=task.trained.held_out_accuracy,
            ood_thresholds=dict(task.trained.ood),
            plans=() if served is None else served.plans,
            revision="" if served is None else served.revision,
        )

    def _changed(self, path: Path) -> bool:
        version = path.stat().st_mtime_ns
        changed = self._versions.get(path) != version
        self._versions[path] = version
        return changed


def _key(source: QuerySource) -> QuerySource:
    """What a head depends on: the encoder's map, or the public set that mapped rows are centred over."""
    if source.placement is Placement.SILO:
        return QuerySource(source.encoder)
    return QuerySource("", Placement.CLIENT, source.public_set)
