"""What the silo does, without sockets: compose maps and heads, plan, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock

import numpy as np
import structlog

from sealign.alignment import AffineMap, MapCovariances, MappedChannel, mapped_row_norm
from sealign.ckks import Evaluator
from sealign.encoders import EncoderCard
from sealign.errors import (
    NoMapError,
    NotFoundError,
    ReleaseRefusedError,
    SealignError,
    StalePlanError,
    UnknownMapError,
)
from sealign.protocol import MapCard, QueryRows, SiloCard
from sealign_server.alignment import AlignmentSession
from sealign_server.encrypted_alignment import EncryptedAlignment
from sealign_server.few_shot import join_released
from sealign_server.releases import Release, ReleaseLedger
from sealign_server.served_task import LoadedTask, ServedTask, task_card
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore
from sealign_server.unsent_products import UnsentProducts

_log = structlog.get_logger()


class Silo:
    """A silo's tasks, served to every encoder that has a map, and to clients that apply a map of their own.

    Maps and heads are read from the store; :meth:`refresh` picks up what other processes have written.
    """

    def __init__(self, store: SiloStore, settings: ServeSettings) -> None:
        self._store = store
        self._settings = settings
        self._tasks: dict[str, LoadedTask] = {}
        self._maps: dict[str, AffineMap] = {}
        self._served: dict[tuple[str, QueryRows], ServedTask] = {}
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
                    loaded = LoadedTask.load(self._store, name)
                except SealignError as error:
                    _log.error("head not read; an earlier one stays", task=name, reason=str(error))
                    continue
                self._tasks[name] = loaded
                self._served = {key: kept for key, kept in self._served.items() if key[0] != name}
        for fingerprint in self._store.map_fingerprints():
            if self._changed(self._store.map_path(fingerprint)):
                try:
                    self._maps[fingerprint] = self._store.load_map(fingerprint)
                except SealignError as error:
                    _log.error("map not read; an earlier one stays", encoder=fingerprint[:12], reason=str(error))
                    continue
                self._served = {key: kept for key, kept in self._served.items() if key[1].encoder != fingerprint}

    def describe(self, rows: QueryRows) -> SiloCard:
        """What the silo offers to a client that encrypts such rows; without an encoder, tasks without plans.

        Raises:
            NotFoundError: the silo does not hold the public set that the client's map was learned over.
            UnknownMapError: the silo does not hold what the client has told about its map.
        """
        self.catch_up(rows)
        learned = None if rows.mapped_over else self._maps.get(rows.encoder)
        key = _served_as(rows)
        return SiloCard(
            name=self._store.document.name,
            tasks=tuple(task_card(task, self._served.get((name, key))) for name, task in self._tasks.items()),
            public_sets=tuple(self._store.public_sets()),
            map=None if learned is None else MapCard.of(learned),
            encoder=self._store.document.encoder_card.fingerprint,
            dimension=self._store.document.encoder_card.dimension,
        )

    def evaluator(self, task: str, rows: QueryRows, plan: str, revision: str) -> Evaluator:
        """The evaluator that a query asks for, of what this process knows: see :meth:`catch_up`.

        Raises:
            NotFoundError: there is no such task.
            NoMapError: no map has been learned for the encoder.
            StalePlanError: head, map or plan have changed since the client asked.
        """
        if task not in self._tasks:
            known = ", ".join(self._tasks) or "none"
            raise NotFoundError(f"there is no task {task[:64]!r} here; tasks are: {known}")
        if not rows.mapped_over and rows.encoder not in self._maps:
            sets = ", ".join(f"{s.name} ({s.digest[:12]}…)" for s in self._store.public_sets()) or "none"
            raise NoMapError(
                f"no map has been learned for encoder {rows.encoder[:12]!r}…; align first (sealign align --public "
                f"FILE) over a public set that the silo holds: {sets}"
            )
        served = self._served.get((task, _served_as(rows)))
        if served is None:
            raise StalePlanError(f"task {task} cannot be served to this encoder at present; the silo's log says why")
        return served.encrypted.evaluator(plan, revision)

    def catch_up(self, rows: QueryRows) -> None:
        """Read what other processes have written, and fit heads for rows of a kind that nobody has asked for here.

        Takes a second or more where a head is to be fitted.

        Raises:
            NotFoundError, UnknownMapError: as :meth:`describe`.
        """
        self.refresh()
        if rows.mapped_over or rows.encoder in self._maps:
            with self._refreshing:
                self._serve(_served_as(rows))

    def register_map(self, public_set: str, covariances: MapCovariances) -> str:
        """Keep what a client tells about the map that it applies; the answer names it.

        Raises:
            NotFoundError: the silo does not hold the public set that the map was learned over.
            InvalidInputError: they do not fit the silo's embeddings of it.
            StorageError: they could not be written.
        """
        digest = sha256(public_set.encode() + covariances.cross.tobytes() + covariances.mapped.tobytes())
        name = digest.hexdigest()[:32]
        public = self._store.load_public_set(public_set)
        if self._store.load_channel(name) is None:
            channel = MappedChannel.of_covariances(public.rows, covariances)
            self._store.keep_channel(name, channel, self._settings.max_maps)
        return name

    def alignment(self, encoder: EncoderCard, public_set: str, rows: int) -> AlignmentSession:
        """A run of plain alignment for an encoder (see :class:`AlignmentSession`)."""
        # A fitted head makes up for what a map shrinks; the trained one gains from a map that does not shrink.
        return AlignmentSession(self._store, encoder, public_set, rows, families=not self._settings.fit_heads)

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

    def _serve(self, rows: QueryRows) -> None:
        """Fit and plan, for rows of this kind, the head of each task that lacks one."""
        missing = [task for name, task in self._tasks.items() if (name, rows) not in self._served]
        if not missing:
            return
        make = self._at_client(rows) if rows.mapped_over else partial(self._at_silo, rows)
        for task in missing:
            with self._leaving_out(task, rows):
                self._served[task.name, rows] = make(task)
        for key in [key for key in self._served if key[1].map_id][: -self._settings.max_maps * len(self._tasks)]:
            del self._served[key]

    @contextmanager
    def _leaving_out(self, task: LoadedTask, rows: QueryRows) -> Iterator[None]:
        """A head that cannot be served is left out, and the log says why."""
        try:
            yield
        except SealignError as error:
            named = (rows.mapped_over or rows.encoder)[:12]
            _log.error("task left out", task=task.name, rows=named, recentred=rows.recentred, reason=str(error))

    def _at_silo(self, rows: QueryRows, task: LoadedTask) -> ServedTask:
        return ServedTask.at_silo(task, self._maps[rows.encoder], rows.recentred, self._settings)

    def _at_client(self, rows: QueryRows) -> Callable[[LoadedTask], ServedTask]:
        """For rows that clients have mapped and centred. The mean of the silo's embeddings, which stays here, is part
        of a head's bias."""
        public = self._store.load_public_set(rows.mapped_over).rows.astype(np.float64)
        channel = self._store.load_channel(rows.map_id) if rows.map_id else None
        if rows.map_id and channel is None:
            raise UnknownMapError("the silo does not hold what was told about this map; register it again")
        row_norm = mapped_row_norm(public)
        mean = public.mean(axis=0)
        return lambda task: ServedTask.at_client(task, mean, row_norm, channel, rows.recentred, self._settings)

    def _changed(self, path: Path) -> bool:
        version = path.stat().st_mtime_ns
        changed = self._versions.get(path) != version
        self._versions[path] = version
        return changed


def _served_as(rows: QueryRows) -> QueryRows:
    """What a head depends on: the encoder's map at the silo, or the set that mapped rows are centred over."""
    return replace(rows, encoder="") if rows.mapped_over else replace(rows, map_id="")
