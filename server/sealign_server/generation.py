"""Generation tasks at work, without sockets: heads behind maps, encoded once into files that all workers share."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import ceil, log2
from pathlib import Path
from threading import Lock

import numpy as np
import structlog
from numpy.typing import NDArray

from sealign.ckks import (
    LARGEST_MODULUS_BITS,
    PackingPlan,
    ProductShape,
    ResidueWeights,
    VocabularyEvaluator,
    candidates,
    part_outputs,
)
from sealign.encoders import EncoderCard
from sealign.errors import NoMapError, SealignError, StalePlanError
from sealign.files import write_atomically
from sealign.protocol import GenerationCard, MapCard
from sealign.protocol.conversions import plan_from_wire, plan_to_wire
from sealign.protocol.v1 import silo_pb2 as pb
from sealign_server.encrypted_alignment import EncryptedAlignment
from sealign_server.generation_store import GenerationStore, VocabularyHead, load_row_norm
from sealign_server.releases import Release, ReleaseLedger
from sealign_server.settings import ServeSettings
from sealign_server.state_alignment import StateAlignment
from sealign_server.store import SiloStore
from sealign_server.unsent_products import UnsentProducts

_log = structlog.get_logger()

_CHUNK = 4096  # tokens whose weights are composed at once


@dataclass(frozen=True, eq=False)
class MappedVocabulary:
    """A head behind an affine map: logits are x·W + bias for a client's row x.

    Attributes:
        head: of the silo.
        weight: M of the map, (d_client, d); None where the client has mapped its rows.
        intercept: of the map, (d,); or the mean on which mapped rows are centred.
        row_norm: largest norm of a row.
    """

    head: VocabularyHead
    weight: NDArray[np.float64] | None
    intercept: NDArray[np.float64]
    row_norm: float

    def columns(self, outputs: slice) -> NDArray[np.float64]:
        """W of some tokens, (dimension, those)."""
        columns = self.head.columns(outputs)
        return columns if self.weight is None else self.weight @ columns

    @property
    def bias(self) -> NDArray[np.float64]:
        """(V,)."""
        bias: NDArray[np.float64] = self.head.logits(self.intercept[None])[0]
        return bias

    def shape(self, precision: float) -> ProductShape:
        """The planner's input, from the norms of W."""
        vocabulary = len(self.head.bias)
        norms = np.concatenate(
            [
                np.linalg.norm(self.columns(slice(start, min(start + _CHUNK, vocabulary))), axis=0)
                for start in range(0, vocabulary, _CHUNK)
            ]
        )
        return ProductShape(
            rows=1,
            dimension=len(self.intercept) if self.weight is None else len(self.weight),
            outputs=vocabulary,
            frobenius_norm=float(np.linalg.norm(norms)),
            range=float((norms * self.row_norm + np.abs(self.bias)).max()),
            row_norm=self.row_norm,
            precision=precision,
            column_norm=float(norms.max()),
        )


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
        )

    def evaluator(self, model: str, plan: str, revision: str, mapped_over: str = "") -> VocabularyEvaluator:
        """The evaluator that a query asks for.

        Raises:
            NoMapError: no map has been learned for the model.
            StalePlanError: head, map or plan have changed since the client asked.
        """
        served = self._served.get(_key(model, mapped_over))
        if served is None or served.revision != revision:
            served = self._prepared(model, mapped_over)  # another worker may have learned or described it
        if served is None:
            raise NoMapError(
                f"no map has been learned for model {model[:12]!r}…; align first (sealign align --generation "
                f"{self.name} --public FILE)"
            )
        if served.revision != revision or served.evaluator.plan.id != plan:
            raise StalePlanError("the task has changed since it was described; describe it and encrypt again")
        return served.evaluator

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
                try:
                    self._served[key] = self._encoded(key, mapped or self._behind(model))
                except SealignError as error:
                    _log.error("task left out for a model", task=self.name, model=model[:12], reason=str(error))
                self._versions[key] = version
            return self._served.get(key)

    def _behind(self, model: str) -> MappedVocabulary:
        learned, norm = self.states.load_map(model), load_row_norm(self.states, model)
        return MappedVocabulary(self._head, learned.weight, learned.intercept, norm)

    def _over(self, public_set: str) -> MappedVocabulary:
        """For rows that clients have mapped themselves and that are centred, as in `Silo`."""
        public = self.states.load_public_set(public_set).rows.astype(np.float64)
        norm = 2.0 ** (1 + ceil(log2(np.linalg.norm(public, axis=1).max()) - 1e-3))
        return MappedVocabulary(self._head, None, public.mean(axis=0), norm)

    def _encoded(self, key: str, mapped: MappedVocabulary) -> _Served:
        """The evaluator, from the file that an earlier process or another worker wrote, or else from a new one."""
        settings = self._settings
        digest = sha256(self._document.head.encode() + mapped.intercept.tobytes())
        digest.update(b"" if mapped.weight is None else mapped.weight.tobytes())
        digest.update(repr((mapped.row_norm, settings.generation_precision, settings.security_table)).encode())
        revision = digest.hexdigest()[:16]
        path = self.states.directory / "weights" / f"{key}-{revision}.safetensors"
        with _locked(path.with_name(f"{key}.lock")):
            plan = self._kept_plan(path)
            if plan is None:
                shape = mapped.shape(settings.generation_precision)
                plans = candidates(
                    shape, settings.security_table, max_bytes=1 << 40, max_modulus_bits=LARGEST_MODULUS_BITS
                )
                plan = plans[0]
                ResidueWeights.write(path, plan, map(mapped.columns, part_outputs(plan)))
                write_atomically(path.with_suffix(".plan"), plan_to_wire(plan).SerializeToString())
                for old in path.parent.glob(f"{key}-*"):
                    if old.stem != path.stem:
                        old.unlink(missing_ok=True)  # a process that has it mapped keeps it
                _log.info("vocabulary encoded", task=self.name, outputs=plan.outputs, bytes=path.stat().st_size)
        return _Served(revision, VocabularyEvaluator(plan, path, mapped.bias))

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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among the silo's processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _key(model: str, mapped_over: str) -> str:
    return f"over-{mapped_over[:32]}" if mapped_over else model[:32]
