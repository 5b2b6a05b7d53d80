"""What the silo does, without sockets: compose maps and heads, plan, evaluate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from math import ceil, log2
from pathlib import Path
from threading import Lock

import numpy as np
import structlog

from sealign.alignment import AffineMap
from sealign.ckks import Evaluator, PackingPlan, candidates, product_shape
from sealign.encoders import EncoderCard
from sealign.errors import NoMapError, NotFoundError, ReleaseRefusedError, SealignError, StalePlanError
from sealign.heads import LinearHead, TrainedHead, calibrate
from sealign.protocol import MapCard, SiloCard, TaskCard
from sealign_server.alignment import AlignmentSession
from sealign_server.encrypted_alignment import EncryptedAlignment
from sealign_server.few_shot import join_released
from sealign_server.releases import Release, ReleaseLedger
from sealign_server.settings import ServeSettings
from sealign_server.store import CalibrationRows, SiloStore, TaskDocument
from sealign_server.unsent_products import UnsentProducts

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


@dataclass(frozen=True)
class _Service:
    """A task behind one encoder's map: the head as calibrated for mapped embeddings, and its products."""

    calibrated: TrainedHead
    encrypted: EncryptedHead


class Silo:
    """A silo's tasks, served to every encoder that has a map, and to clients that apply a map of their own.

    Maps and heads are read from the store; :meth:`refresh` picks up what other processes have written.
    """

    def __init__(self, store: SiloStore, settings: ServeSettings) -> None:
        self._store = store
        self._settings = settings
        self._tasks: dict[str, _Task] = {}
        self._maps: dict[str, AffineMap] = {}
        self._services: dict[tuple[str, str, str], _Service] = {}
        self.releases = ReleaseLedger(store.releases_path, settings.max_releases)
        self.unsent = UnsentProducts(store.unsent_path, settings.product_hours)
        self.unsent.sweep()
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
                try:
                    loaded = _Task(name, *self._store.load_task(name), self._store.load_calibration(name))
                except SealignError as error:
                    _log.error("head not read; an earlier one stays", task=name, reason=str(error))
                    continue
                self._tasks[name] = loaded
                self._services = {key: kept for key, kept in self._services.items() if key[0] != name}
                self._compose(self._maps, [name])
        for fingerprint in self._store.map_fingerprints():
            if self._changed(self._store.map_path(fingerprint)):
                try:
                    self._maps[fingerprint] = self._store.load_map(fingerprint)
                except SealignError as error:
                    _log.error("map not read; an earlier one stays", encoder=fingerprint[:12], reason=str(error))
                    continue
                self._compose([fingerprint], self._tasks)

    def describe(self, encoder: str, mapped_over: str = "") -> SiloCard:
        """What the silo offers to an encoder, named by fingerprint; empty for tasks without plans.

        A client that applies a map of its own names, in ``mapped_over``, the public set that it was learned over.

        Raises:
            NotFoundError: the silo does not hold that public set.
        """
        self.refresh()
        self._prepare(mapped_over)
        learned = None if mapped_over else self._maps.get(encoder)
        return SiloCard(
            name=self._store.document.name,
            tasks=tuple(self._task_card(task, encoder, mapped_over) for task in self._tasks.values()),
            public_sets=tuple(self._store.public_sets()),
            map=None if learned is None else MapCard.of(learned),
            encoder=self._store.document.encoder_card.fingerprint,
            dimension=self._store.document.encoder_card.dimension,
        )

    def evaluator(self, task: str, encoder: str, plan: str, revision: str, mapped_over: str = "") -> Evaluator:
        """The evaluator that a query asks for; ``mapped_over`` as in :meth:`describe`.

        Raises:
            NotFoundError: there is no such task or public set.
            NoMapError: no map has been learned for the encoder.
            StalePlanError: head, map or plan have changed since the client asked.
        """
        if task not in self._tasks or (not mapped_over and encoder not in self._maps):
            self.refresh()  # another worker may have learned it
        if task not in self._tasks:
            known = ", ".join(self._tasks) or "none"
            raise NotFoundError(f"there is no task {task[:64]!r} here; tasks are: {known}")
        if not mapped_over and encoder not in self._maps:
            sets = ", ".join(f"{s.name} ({s.digest[:12]}…)" for s in self._store.public_sets()) or "none"
            raise NoMapError(
                f"no map has been learned for encoder {encoder[:12]!r}…; align first (sealign align --public FILE) "
                f"over a public set that the silo holds: {sets}"
            )
        try:
            return self._head(task, encoder, mapped_over).evaluator(plan, revision)
        except StalePlanError:
            self.refresh()  # the client may have described the task at a worker that knew more
            self._prepare(mapped_over)
            return self._head(task, encoder, mapped_over).evaluator(plan, revision)

    def alignment(self, encoder: EncoderCard, public_set: str, rows: int) -> AlignmentSession:
        """A run of plain alignment for an encoder (see :class:`AlignmentSession`)."""
        return AlignmentSession(self._store, encoder, public_set, rows)

    def releases_left(self, card: SiloCard, encoder: str, dimension: int, client: str) -> SiloCard:
        """The card with the number of cross-covariances that are left for an encoder of this client.

        Raises:
            StorageError: the ledger cannot be read.
        """
        asked = (
            replace(s, releases_left=self.releases.left(Release(s.digest, encoder, client, s.rows, dimension, s.base)))
            for s in card.public_sets
        )
        return replace(card, public_sets=tuple(asked))

    def released_texts(self, task: str, public_set: str = "") -> tuple[str, ...]:
        """Unlabelled texts of a task, for clients; joined to the public set that they name.

        Raises:
            ReleaseRefusedError: the silo was not told to release texts.
            NotFoundError: there is no such task or public set, or the task has no texts to release.
            StorageError: files are damaged, or the joined set could not be written.
        """
        if not self._settings.release_texts:
            raise ReleaseRefusedError(
                "this silo does not release texts of its tasks; align without --few-shot, or ask its operator for "
                "`sealign-server serve --release-texts`"
            )
        released = self._store.load_released(task) if task in self._store.task_names() else None
        if released is None:
            raise NotFoundError(
                f"there are no texts of a task {task[:64]!r} to release here; they are kept by "
                "`sealign-server train --release COUNT`"
            )
        if public_set:
            join_released(self._store, public_set, released, task)
        return released.texts

    def release(self, encoder: EncoderCard, public_set: str, rows: int, client: str) -> Release:
        """What an encrypted alignment would count as.

        Raises:
            NotFoundError: the silo does not hold that public set.
        """
        base = self._store.public_set(public_set).base
        return Release(public_set, encoder.fingerprint, client, rows, encoder.dimension, base)

    def encrypted_alignment(self, encoder: EncoderCard, release: Release) -> EncryptedAlignment:
        """A run of encrypted alignment for an encoder (see :class:`EncryptedAlignment`).

        Raises:
            ReleaseRefusedError: nothing more is released to this client over this set.
        """
        alignment = EncryptedAlignment(self._store, self._settings, encoder, release)
        self.releases.require_open(release)
        return alignment

    def _head(self, task: str, encoder: str, mapped_over: str) -> EncryptedHead:
        service = self._services.get(_key(task, encoder, mapped_over))
        if service is None:
            raise StalePlanError(f"task {task} cannot be served to this encoder at present; the silo's log says why")
        return service.encrypted

    def _compose(self, encoders: Iterable[str], tasks: Iterable[str]) -> None:
        for encoder in encoders:
            learned = self._maps[encoder]
            for task in tasks:
                self._services.pop(_key(task, encoder), None)
                try:
                    calibrated = self._tasks[task].behind(learned)
                    composed = calibrated.head.composed(learned.weight, learned.intercept)
                    self._services[_key(task, encoder)] = _Service(calibrated, EncryptedHead(composed, self._settings))
                except SealignError as error:
                    _log.error("task left out for an encoder", task=task, encoder=encoder[:12], reason=str(error))

    def _prepare(self, mapped_over: str) -> None:
        """Compose heads for rows that clients have mapped themselves, when somebody first asks for them.

        Such rows are centred. The mean of the silo's embeddings, which stays here, is part of the head's bias.
        """
        with self._refreshing:
            missing = [name for name in self._tasks if _key(name, "", mapped_over) not in self._services]
            if not mapped_over or not missing:
                return
            public = self._store.load_public_set(mapped_over).rows.astype(np.float64)
            # A centred embedding is at most twice as long as the longest one.
            row_norm = 2.0 ** (1 + ceil(log2(np.linalg.norm(public, axis=1).max()) - 1e-3))
            for name in missing:
                trained = self._tasks[name].trained
                try:
                    centred = trained.head.composed(np.eye(public.shape[1]), public.mean(axis=0))
                    served = _Service(trained, EncryptedHead(centred, self._settings, row_norm))
                    self._services[_key(name, "", mapped_over)] = served
                except SealignError as error:
                    _log.error("task left out", task=name, mapped_over=mapped_over[:12], reason=str(error))

    def _task_card(self, task: _Task, encoder: str, mapped_over: str) -> TaskCard:
        service = self._services.get(_key(task.name, encoder, mapped_over))
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


def _key(task: str, encoder: str, mapped_over: str = "") -> tuple[str, str, str]:
    """What a service depends on: the encoder's map at the silo, or the set that mapped rows are centred over."""
    return (task, "", mapped_over) if mapped_over else (task, encoder, "")
