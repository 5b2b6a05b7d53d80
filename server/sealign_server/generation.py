"""Generation tasks at work, without sockets: heads behind maps, encoded once into files that all workers share."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock

import structlog

from sealign.ckks import PackingPlan, ResidueWeights, VocabularyEvaluator, part_outputs
from sealign.encoders import EncoderCard
from sealign.errors import NoMapError, NoPlanError, SealignError, StalePlanError
from sealign.files import write_atomically
from sealign.generation.vocabulary import MappedVocabulary, plan_vocabulary
from sealign.protocol import GenerationCard, MapCard
from sealign.protocol.conversions import plan_from_wire, plan_to_wire
from sealign.protocol.v1 import silo_pb2 as pb
from sealign_server.encrypted_alignment import EncryptedAlignment
from sealign_server.generation_store import GenerationStore, load_client_states, load_row_norm
from sealign_server.releases import Release, ReleaseLedger
from sealign_server.settings import ServeSettings
from sealign_server.state_alignment import StateAlignment
from sealign_server.store import SiloStore
from sealign_server.unsent_products import UnsentProducts

_log = structlog.get_logger()


@dataclass(frozen=True, eq=False)
class _Served:
    revision: str
    evaluator: VocabularyEvaluator


class GenerationTask:
    """One task, served to every model that has a map, and to clients that apply a map of their own.

    Args:
        name: of the task.
        store: holds it.
        settings: precision, limits.
    """

    def __init__(self, name: str, store: GenerationStore, settings: ServeSettings) -> None:
        self.name = name
        self._store = store
        self._settings = settings
        self._document, self._head = store.load(name)
        self.states: SiloStore = store.states(name)
        self.releases = ReleaseLedger(self.states.releases_path, settings.max_releases)
        self.unsent = UnsentProducts(self.states.unsent_path, settings.product_hours)
        self._served: dict[str, _Served] = {}
        self._unservable: set[str] = set()
        self._versions: dict[str, int] = {}
        self._preparing = Lock()

    def describe(self, model: str, mapped_over: str = "") -> GenerationCard:
        """What the task offers to a model, named by fingerprint; empty for a card without a plan.

        Raises:
            NotFoundError: the silo does not hold the public set ``mapped_over``.
        """
        served, learned = self._prepared(model, mapped_over), None
        if served is not None and not mapped_over:
            learned = MapCard.of(self.states.load_map(model))
        return GenerationCard(
            name=self.name,
            description=self._document.description,
            model=self.states.document.encoder_card,
            vocabulary=self._document.vocabulary,
            tokenizer=self._document.tokenizer,
            tokenizer_bytes=self._document.tokenizer_bytes,
            max_tokens=self._settings.max_tokens,
            public_sets=tuple(self.states.public_sets()),
            map=learned,
            plan=None if served is None else served.evaluator.plan,
            revision="" if served is None else served.revision,
            unservable=_key(model, mapped_over) in self._unservable,
        )

    def evaluator(self, model: str, plan: str, revision: str, mapped_over: str = "") -> VocabularyEvaluator:
        """The evaluator that a query asks for.

        Raises:
            NoMapError: no map has been learned for the model.
            NoPlanError: no parameter set can hold the logits behind it.
            StalePlanError: head, map or plan have changed since the client asked.
        """
        served = self._served.get(_key(model, mapped_over))
        if served is None or served.revision != revision:
            served = self._prepared(model, mapped_over)  # another worker may have learned or described it
        if _key(model, mapped_over) in self._unservable:
            raise NoPlanError(
                f"generation task {self.name} cannot be served to this model under any parameter set; the silo's "
                "operator can tell from its log what to change"
            )
        if served is None:
            raise NoMapError(
                f"no map has been learned for model {model[:12]!r}…; align first (sealign align --generation "
                f"{self.name} --public FILE)"
            )
        if served.revision != revision or served.evaluator.plan.id != plan:
            raise StalePlanError("the task has changed since it was described; describe it and encrypt again")
        return served.evaluator

    def check(self) -> None:
        """Log, with what to do, what cannot be served: a map, or, where clients apply their own, a public set.

        Raises:
            StorageError, InvalidInputError: a file is missing or damaged, or does not belong to the task.
        """
        behind = [(_key(model, ""), partial(self._behind, model)) for model in self.states.map_fingerprints()]
        over = [(_key("", s.digest), partial(self._over, s.digest)) for s in self.states.public_sets()]
        for key, made in behind + over:
            mapped = made()
            _, path = self._weights(key, mapped)
            if self._kept_plan(path) is None:
                try:
                    self._planned(mapped)
                except NoPlanError as error:
                    _log.error("generation task cannot be served", task=self.name, to=key, reason=str(error))

    def alignment(self, model: EncoderCard, public_set: str, rows: int) -> StateAlignment:
        """A run of plain alignment for a model (see `StateAlignment`)."""
        return StateAlignment(self.states, model, public_set, rows)

    def release(self, encoder: EncoderCard, public_set: str, rows: int, client: str) -> Release:
        """What an encrypted alignment would count as.

        Raises:
            NotFoundError: the silo does not hold that public set.
        """
        base = self.states.public_set(public_set).base
        return Release(public_set, encoder.fingerprint, client, rows, encoder.dimension, base)

    def encrypted_alignment(self, encoder: EncoderCard, release: Release) -> EncryptedAlignment:
        """A run of encrypted alignment for a model (see `EncryptedAlignment`).

        Raises:
            ReleaseRefusedError: nothing more is released to this client over this set.
        """
        alignment = EncryptedAlignment(self.states, self._settings, encoder, release)
        self.releases.require_open(release)
        return alignment

    def _prepared(self, model: str, mapped_over: str) -> _Served | None:
        """The head behind a map, encoded; None without a map, or one that cannot be served."""
        with self._preparing:
            key = _key(model, mapped_over)
            path = self.states.map_path(model)
            if not mapped_over and model not in self.states.map_fingerprints():
                return None
            version = 0 if mapped_over else path.stat().st_mtime_ns
            if self._versions.get(key) != version:
                mapped = self._over(mapped_over) if mapped_over else None
                self._served.pop(key, None)
                self._unservable.discard(key)
                try:
                    self._served[key] = self._encoded(key, mapped or self._behind(model))
                except SealignError as error:
                    if isinstance(error, NoPlanError):
                        self._unservable.add(key)
                    _log.error("task left out for a model", task=self.name, model=model[:12], reason=str(error))
                self._versions[key] = version
            return self._served.get(key)

    def _behind(self, model: str) -> MappedVocabulary:
        learned = self.states.load_map(model)
        rows, norm = load_client_states(self.states, learned), load_row_norm(self.states, model)
        return MappedVocabulary.behind(self._head, learned, norm, rows)

    def _over(self, public_set: str) -> MappedVocabulary:
        return MappedVocabulary.over(self._head, self.states.load_public_set(public_set).rows)

    def _planned(self, mapped: MappedVocabulary) -> PackingPlan:
        return plan_vocabulary(self.name, mapped, self._settings.generation_precision, self._settings.security_table)

    def _encoded(self, key: str, mapped: MappedVocabulary) -> _Served:
        """The evaluator, from the file that an earlier process or another worker wrote, or else from a new one."""
        revision, path = self._weights(key, mapped)
        with _locked(path.with_name(f"{key}.lock")):
            plan = self._kept_plan(path)
            if plan is None:
                plan = self._planned(mapped)
                ResidueWeights.write(path, plan, map(mapped.columns, part_outputs(plan)))
                write_atomically(path.with_suffix(".plan"), plan_to_wire(plan).SerializeToString())
                for old in path.parent.glob(f"{key}-*"):
                    if old.stem != path.stem:
                        old.unlink(missing_ok=True)  # a process that has it mapped keeps it
                _log.info("vocabulary encoded", task=self.name, outputs=plan.outputs, bytes=path.stat().st_size)
        return _Served(revision, VocabularyEvaluator(plan, path, mapped.bias))

    def _weights(self, key: str, mapped: MappedVocabulary) -> tuple[str, Path]:
        """Revision of a head behind a map, and the file of its weights."""
        settings = self._settings
        digest = sha256(self._document.head.encode() + mapped.intercept.tobytes())
        digest.update(b"" if mapped.weight is None else mapped.weight.tobytes())
        digest.update(repr((mapped.row_norm, settings.generation_precision, settings.security_table)).encode())
        revision = digest.hexdigest()[:16]
        return revision, self.states.directory / "weights" / f"{key}-{revision}.safetensors"

    def _kept_plan(self, path: Path) -> PackingPlan | None:
        try:
            message = pb.Plan.FromString(path.with_suffix(".plan").read_bytes())
        except OSError:
            return None
        return plan_from_wire(message, self._settings.security_table)


class GenerationTasks:
    """All generation tasks of a silo; new ones are picked up when clients ask.

    Args:
        silo: the silo's store.
        settings: precision, limits.
    """

    def __init__(self, silo: SiloStore, settings: ServeSettings) -> None:
        self._store = GenerationStore(silo)
        self._settings = settings
        self._tasks: dict[str, GenerationTask] = {}

    def all(self) -> list[GenerationTask]:
        """Every task that can be read."""
        return [task for task in map(self._readable, self._store.names()) if task is not None]

    def task(self, name: str) -> GenerationTask:
        """A task.

        Raises:
            NotFoundError: there is no such task.
            StorageError: its files are damaged.
        """
        if name not in self._tasks:
            self._tasks[name] = GenerationTask(name, self._store, self._settings)
        return self._tasks[name]

    def check(self) -> None:
        """Log, with what to do, what cannot be served, before a client asks for it."""
        for task in self.all():
            _check(task)

    def tokenizer(self, name: str) -> bytes:
        """A task's tokenizer.

        Raises:
            NotFoundError, StorageError: there is no such task, or the file is damaged.
        """
        return self._store.tokenizer(name)

    def _readable(self, name: str) -> GenerationTask | None:
        try:
            return self.task(name)
        except SealignError as error:
            _log.error("generation task not read", task=name, reason=str(error))
            return None


def _check(task: GenerationTask) -> None:
    try:
        task.check()
    except SealignError as error:
        _log.error("generation task not read", task=task.name, reason=str(error))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among the silo's processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _key(model: str, mapped_over: str) -> str:
    return f"over-{mapped_over[:32]}" if mapped_over else model[:32]
