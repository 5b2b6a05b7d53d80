"""Generation tasks in a silo's directory: the head of a causal model, and all that belongs to its states.

generation/<task>/generation.json      vocabulary, tokenizer, digest of the head; it makes the task
generation/<task>/head.safetensors     the head: weight (V, d), bias (V,)
generation/<task>/tokenizer.json       the tokenizer, for clients
generation/<task>/silo.json, public/, maps/, …  as a silo's own, for token states in place of embeddings
generation/<task>/public/<digest>.following.safetensors  the token after each row, for refining maps
generation/<task>/maps/<fingerprint>.norm.json   largest norm of the client's states
generation/<task>/maps/<fingerprint>.states      the client's states over the public set
generation/<task>/weights/             encoded weights, made when they are first needed
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from sealign.alignment import AffineMap
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.files import ArrayWriter, map_arrays, write_atomically
from sealign.generation.vocabulary import VocabularyHead
from sealign_server.store import SiloDocument, SiloStore

_TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class GenerationDocument(BaseModel):
    """generation.json: what a task offers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    vocabulary: int
    tokenizer: str
    tokenizer_bytes: int
    head: str


class GenerationStore:
    """Reads and writes the generation tasks of a silo.

    Args:
        silo: the silo that the tasks belong to.
    """

    def __init__(self, silo: SiloStore) -> None:
        self._root = silo.directory / "generation"

    def names(self) -> list[str]:
        """Names of the tasks, sorted."""
        return sorted(path.parent.name for path in self._root.glob("*/generation.json"))

    def directory(self, name: str) -> Path:
        """Where a task is kept.

        Raises:
            NotFoundError: there is no such task.
        """
        if name not in self.names():
            known = ", ".join(self.names()) or "none"
            raise NotFoundError(f"there is no generation task {name[:64]!r} here; generation tasks are: {known}")
        return self._root / name

    def states(self, name: str) -> SiloStore:
        """Public sets and maps of a task: a silo's directory for token states in place of embeddings."""
        return SiloStore(self.directory(name))

    def create(
        self,
        name: str,
        silo: SiloDocument,
        description: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        tokenizer: bytes,
    ) -> SiloStore:
        """Keep a head as a task; its document last, since that makes the task.

        Args:
            name: of the task.
            silo: the model that makes the states.
            description: for people.
            weight: (V, d).
            bias: (V,); None for zeros.
            tokenizer: its bytes.

        Raises:
            InvalidInputError: the name is not a short lower-case identifier, there is such a task already, or the head
                is not finite.
            StorageError: a file could not be written.
        """
        if not _TASK_NAME.fullmatch(name):
            raise InvalidInputError(f"task name {name!r} must be 1 to 63 of a-z, 0-9, '.', '_', '-'")
        if name in self.names():
            raise InvalidInputError(f"there is a generation task {name} already; choose another name")
        given = np.zeros(len(weight), np.float32) if bias is None else bias.astype(np.float32)
        if not (np.isfinite(weight).all() and np.isfinite(given).all()):
            raise InvalidInputError("the head holds NaN or infinite values; the model is damaged")
        directory = self._root / name
        digest = sha256(np.ascontiguousarray(weight).data)
        digest.update(given.data)
        shapes = {"weight": (weight.shape, weight.dtype), "bias": (given.shape, given.dtype)}
        with ArrayWriter(directory / "head.safetensors", shapes, {"head": digest.hexdigest()}, mode=0o600) as writer:
            writer.append("weight", weight)
            writer.append("bias", given)
        write_atomically(directory / "tokenizer.json", tokenizer)
        write_atomically(directory / "silo.json", silo.model_dump_json(indent=2).encode())
        document = GenerationDocument(
            description=description,
            vocabulary=len(weight),
            tokenizer=sha256(tokenizer).hexdigest(),
            tokenizer_bytes=len(tokenizer),
            head=digest.hexdigest(),
        )
        write_atomically(directory / "generation.json", document.model_dump_json(indent=2).encode())
        return SiloStore(directory)

    def load(self, name: str) -> tuple[GenerationDocument, VocabularyHead]:
        """A task's document and head.

        Raises:
            NotFoundError: there is no such task.
            StorageError: a file is missing, damaged or not of this task.
        """
        directory = self.directory(name)
        try:
            document = GenerationDocument.model_validate_json((directory / "generation.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise StorageError(f"generation.json of task {name} is missing or damaged; keep the task again") from error
        arrays, metadata = map_arrays(directory / "head.safetensors")
        weight, bias = arrays.get("weight"), arrays.get("bias")
        if weight is None or bias is None or metadata.get("head") != document.head or len(weight) != len(bias):
            raise StorageError(f"head.safetensors of task {name} is damaged; keep the task again")
        if len(weight) != document.vocabulary:
            raise StorageError(
                f"the head of task {name} has {len(weight)} outputs and its vocabulary {document.vocabulary}; keep the "
                "task again"
            )
        return document, VocabularyHead.of(weight, bias)

    def tokenizer(self, name: str) -> bytes:
        """A task's tokenizer.

        Raises:
            NotFoundError: there is no such task.
            StorageError: the file is missing or damaged.
        """
        document, _ = self.load(name)
        try:
            content = (self.directory(name) / "tokenizer.json").read_bytes()
        except OSError as error:
            raise StorageError(f"tokenizer.json of task {name} could not be read: {error.strerror}") from error
        if sha256(content).hexdigest() != document.tokenizer:
            raise StorageError(f"tokenizer.json of task {name} is damaged; keep the task again")
        return content


def following_path(states: SiloStore, digest: str) -> Path:
    """Where the tokens that follow the rows of a public set are kept."""
    return states.directory / "public" / f"{digest}.following.safetensors"


def save_row_norm(states: SiloStore, fingerprint: str, norm: float) -> None:
    """Keep the largest norm of a client's states; write it before the map."""
    write_atomically(_norm_path(states, fingerprint), json.dumps({"row_norm": norm}).encode())


def load_row_norm(states: SiloStore, fingerprint: str) -> float:
    """The largest norm of a client's states.

    Raises:
        StorageError: the file is missing or damaged.
    """
    try:
        return float(json.loads(_norm_path(states, fingerprint).read_bytes())["row_norm"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{_norm_path(states, fingerprint)} is missing or damaged; align again") from error


def save_client_states(states: SiloStore, learned: AffineMap, rows: NDArray[np.float16]) -> None:
    """Keep a client's states over the public set of its map, (n, d); write them before the map."""
    path = _states_path(states, learned.source_fingerprint)
    shapes = {"states": (rows.shape, rows.dtype)}
    with ArrayWriter(path, shapes, {"public_set": learned.public_set}, mode=0o600) as writer:
        writer.append("states", rows)


def load_client_states(states: SiloStore, learned: AffineMap) -> NDArray[np.float16] | None:
    """A client's states over the public set of its map, (n, d), mapped into memory; None if they were not kept.

    Raises:
        StorageError: the file is damaged.
    """
    path = _states_path(states, learned.source_fingerprint)
    if not path.exists():
        return None
    arrays, metadata = map_arrays(path)
    rows = arrays.get("states")
    if rows is None or rows.shape[1:] != learned.weight.shape[:1]:
        raise StorageError(f"{path} is damaged; align again")
    return rows if metadata.get("public_set") == learned.public_set else None


def _states_path(states: SiloStore, fingerprint: str) -> Path:
    return states.directory / "maps" / f"{fingerprint}.states"


def _norm_path(states: SiloStore, fingerprint: str) -> Path:
    return states.directory / "maps" / f"{fingerprint}.norm.json"
