"""Generation tasks behind kinds of rows: heads encoded once, into files that all workers share."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock

import numpy as np
import structlog

from sealign.ckks import PackingPlan, ResidueWeights, VocabularyEvaluator, part_outputs
from sealign.errors import InvalidInputError, NoPlanError, NotFoundError, SealignError, StalePlanError
from sealign.files import write_atomically
from sealign.generation.vocabulary import MappedVocabulary, VocabularyHead, plan_vocabulary
from sealign.protocol import ClientMap, GenerationCard, RowKind, generation_space
from sealign_server.ledger import Ledger
from sealign_server.serving.cache import FairCache
from sealign_server.serving.heavy import HeavyWork
from sealign_server.serving.space import MappedRows, Space, keyed
from sealign_server.settings import ServingOptions
from sealign_server.store import GenerationDocument, GenerationStore, plan_from_document, plan_to_document

_log = structlog.get_logger()

_ENCODED = 2
"""Encoded heads on disk for each identity and task: hundreds of megabytes each."""
_HELD_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class GenerationTask:
    """A task as it is kept; the version changes when it is removed and added again."""

    name: str
    version: str
    document: GenerationDocument
    head: VocabularyHead
    space: Space


@dataclass(frozen=True, eq=False)
class ServedVocabulary:
    """A task behind one kind of rows; without an evaluator where no parameter set can hold the logits."""

    head: str
    revision: str
    evaluator: VocabularyEvaluator | None


class Generation:
    """All generation tasks, for all identities.

    Args:
        store: their files.
        ledger: counts what their spaces release.
        heavy: where heads are encoded.
        options: precision, limits.
    """

    def __init__(self, store: GenerationStore, ledger: Ledger, heavy: HeavyWork, options: ServingOptions) -> None:
        self._store = store
        self._ledger = ledger
        self._heavy = heavy
        self._options = options
        self._tasks: dict[str, GenerationTask] = {}
        self._loading = Lock()
        self._checked: dict[str, tuple[tuple[object, ...], str | None]] = {}
        self._served: FairCache[ServedVocabulary] = FairCache(_HELD_BYTES)

    def names(self) -> list[str]:
        """Return the names of the tasks, sorted."""
        return self._store.names()

    def task(self, name: str) -> GenerationTask:
        """Return a task.

        Raises:
            NotFoundError: there is no such task.
            StorageError: its files are damaged.
        """
        version = self._store.version(name)
        if version is None:
            self._tasks.pop(name, None)
            others = ", ".join(self._store.names()) or "none"
            raise NotFoundError(f"there is no generation task {name[:64]!r} here; generation tasks are: {others}")
        with self._loading:
            known = self._current(name)
            if known is None:
                space = Space(generation_space(name), self._store.space(name), self._ledger, self._options)
                document, head = self._store.document(name), self._store.load_head(name)
                known = self._tasks[name] = GenerationTask(name, version, document, head, space)
            return known

    def tokenizer(self, name: str) -> bytes:
        """Return a task's tokenizer.

        Raises:
            NotFoundError, StorageError: there is no such task, or the file is damaged.
        """
        return self._store.tokenizer(name)

    async def describe(self, identity: str, name: str, rows: RowKind | None) -> GenerationCard:
        """Return a task, and for rows of a kind that an identity sends the plan under which it is evaluated.

        Raises:
            NotFoundError: there is no such task, or no such public set.
            NoMapError, UnknownMapError: as `Space.mapped`.
        """
        task = await self._heavy_task(identity, name)
        card = GenerationCard(
            name=task.name,
            description=task.document.description,
            model=task.document.encoder_card,
            vocabulary=task.document.vocabulary,
            tokenizer=task.document.tokenizer,
            tokenizer_bytes=task.document.tokenizer_bytes,
            max_tokens=self._options.max_tokens,
            plan=None,
            revision="",
        )
        if rows is None:
            return card
        _require_plain(rows)
        served = await self._prepared(identity, task, rows)
        plan = None if served.evaluator is None else served.evaluator.plan
        return replace(card, plan=plan, revision=served.revision if plan else "", unservable=plan is None)

    def evaluator(self, identity: str, name: str, rows: RowKind, plan: str, revision: str) -> VocabularyEvaluator:
        """Return the evaluator that a query asks for, of what this process holds: see :meth:`catch_up`.

        Raises:
            NotFoundError: there is no such task.
            NoMapError, UnknownMapError: as `Space.mapped`.
            NoPlanError: no parameter set can hold the logits behind the map.
            StalePlanError: head, map or plan have changed since the client asked, or this process knows nothing yet.
        """
        task = self._current(name)
        if task is None:
            raise StalePlanError("the task has changed since it was described; describe it and encrypt again")
        if not any(task.space.is_held(owner, rows) for owner in task.space.owners(identity, rows)):
            task.space.mapped(identity, rows)  # says what is missing
        served = self._held(identity, task, rows)
        if served is not None and served.evaluator is None:
            raise NoPlanError(
                f"generation task {name} cannot be served to this model under any parameter set; the silo's operator "
                "can tell from its log what to change"
            )
        if (
            served is None
            or served.evaluator is None
            or served.revision != revision
            or served.evaluator.plan.id != plan
        ):
            raise StalePlanError("the task has changed since it was described; describe it and encrypt again")
        return served.evaluator

    async def catch_up(self, identity: str, name: str, rows: RowKind) -> None:
        """Read what other processes have written, and encode the head for rows of a kind.

        Raises:
            NotFoundError, NoMapError, UnknownMapError: as :meth:`describe`.
        """
        _require_plain(rows)
        await self._prepared(identity, await self._heavy_task(identity, name), rows)

    def faults(self) -> dict[str, str]:
        """Return why tasks can be served to nobody, by name; what is new is read, which takes seconds."""
        for name in self._store.names():
            made_of: tuple[object, ...] = (self._store.version(name),)
            with suppress(SealignError):
                made_of += tuple(card.digest for card in self._store.space(name).public_sets())
            if self._checked.get(name, ((), None))[0] != made_of:
                self._checked[name] = made_of, self._fault(name)
        found = {name: self._checked[name][1] for name in self._store.names() if name in self._checked}
        return {name: reason for name, reason in found.items() if reason is not None}

    def _fault(self, name: str) -> str | None:
        """Return why a task cannot be served: its files, or no plan over any of its public sets."""
        options, reasons = self._options, list[str]()
        try:
            task = self.task(name)
            self.tokenizer(name)
            for card in task.space.store.public_sets():
                vocabulary = self._vocabulary(task, task.space.mapped("", RowKind("", ClientMap(card.digest))))
                try:
                    plan_vocabulary(name, vocabulary, options.generation_precision, options.security_table)
                except NoPlanError as error:
                    reasons.append(str(error))
                else:
                    return None
        except SealignError as error:
            return str(error)
        return reasons[0] if reasons else None

    def check(self) -> None:
        """Log, with what to do, what cannot be served, before a client asks for it."""
        for name in self._store.names():
            self._check(name)

    def _check(self, name: str) -> None:
        try:
            task = self.task(name)
            for card in task.space.store.public_sets():
                self._check_rows(task, "", RowKind("", ClientMap(card.digest)))
            for record in task.space.store.map_records():
                self._check_rows(task, record.identity, RowKind(record.card.encoder, record.card.id))
        except SealignError as error:
            _log.error("generation task not read", task=name, reason=str(error))

    def _check_rows(self, task: GenerationTask, identity: str, rows: RowKind) -> None:
        mapped, options = task.space.mapped(identity, rows), self._options
        try:
            plan_vocabulary(
                task.name, self._vocabulary(task, mapped), options.generation_precision, options.security_table
            )
        except NoPlanError as error:
            to = rows.map if isinstance(rows.map, str) else rows.map.public_set
            _log.error("generation task cannot be served", task=task.name, to=to, reason=str(error))

    def _current(self, name: str) -> GenerationTask | None:
        """Return what this process has read of a task; None where that is nothing, or of an earlier task."""
        known = self._tasks.get(name)
        return known if known is not None and known.version == self._store.version(name) else None

    async def _heavy_task(self, identity: str, name: str) -> GenerationTask:
        """Return a task; reading one for the first time is heavy."""
        if (known := self._current(name)) is not None:
            return known
        return await self._heavy.do(identity, partial(self.task, name))

    async def _prepared(self, identity: str, task: GenerationTask, rows: RowKind) -> ServedVocabulary:
        held = self._held(identity, task, rows)
        if held is not None and any(task.space.is_held(o, rows) for o in task.space.owners(identity, rows)):
            return held
        return await self._heavy.do(identity, partial(self._prepare, identity, task, rows))

    def _prepare(self, identity: str, task: GenerationTask, rows: RowKind) -> ServedVocabulary:
        mapped = task.space.mapped(identity, rows)
        served = self._encoded(task, mapped)
        size = 1 if served.evaluator is None else 8 * served.evaluator.plan.outputs
        self._served.put(mapped.owner, (task.name, keyed(rows)), served, size)
        return served

    def _held(self, identity: str, task: GenerationTask, rows: RowKind) -> ServedVocabulary | None:
        for owner in task.space.owners(identity, rows):
            held = self._served.get(owner, (task.name, keyed(rows)))
            if held is not None and held.head == task.document.head:
                return held
        return None

    @staticmethod
    def _vocabulary(task: GenerationTask, mapped: MappedRows) -> MappedVocabulary:
        return MappedVocabulary(task.head, mapped.weight, mapped.intercept, mapped.row_norm, mapped.seen)

    def _encoded(self, task: GenerationTask, mapped: MappedRows) -> ServedVocabulary:
        """Return the evaluator, from the file that an earlier process or another worker wrote, or else a new one."""
        vocabulary, options = self._vocabulary(task, mapped), self._options
        revision = _revision(task, mapped, options)
        with self._store.weights(task.name, sha256(mapped.owner.encode()).hexdigest(), revision) as path:
            plan = self._kept_plan(path)
            if plan is None:
                try:
                    plan = plan_vocabulary(task.name, vocabulary, options.generation_precision, options.security_table)
                except NoPlanError as error:
                    _log.error(
                        "generation task cannot be served", task=task.name, owner=mapped.owner, reason=str(error)
                    )
                    return ServedVocabulary(task.document.head, revision, None)
                ResidueWeights.write(path, plan, map(vocabulary.columns, part_outputs(plan)))
                write_atomically(path.with_suffix(".json"), json.dumps(plan_to_document(plan)).encode())
                self._store.evict_weights(path, _ENCODED)
                _log.info("vocabulary encoded", task=task.name, outputs=plan.outputs, bytes=path.stat().st_size)
        return ServedVocabulary(task.document.head, revision, VocabularyEvaluator(plan, path, vocabulary.bias))

    def _kept_plan(self, path: Path) -> PackingPlan | None:
        try:
            document = json.loads(path.with_suffix(".json").read_bytes())
            return plan_from_document(document, self._options.security_table) if path.exists() else None
        except (OSError, ValueError, KeyError, TypeError, SealignError):
            return None


def _require_plain(rows: RowKind) -> None:
    if rows.recentred:
        raise InvalidInputError("token states cannot be recentred; leave RowKind.recentred unset")


def _revision(task: GenerationTask, mapped: MappedRows, options: ServingOptions) -> str:
    """Return the name of a head behind a map at a precision."""
    numbers = np.array([mapped.row_norm, options.generation_precision], dtype="<f8").tobytes()
    table = options.security_table.value.encode()
    parts = (b"sealign served vocabulary v1", task.document.head.encode(), mapped.key, numbers, table)
    return sha256(b"\0".join(parts)).hexdigest()[:32]
