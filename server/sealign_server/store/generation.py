"""Generation tasks: the head of a causal model, its tokenizer, and the space of its token states.

generation/<task>/generation.json   model, vocabulary, tokenizer, digest of the head; it makes the task
generation/<task>/head.safetensors  the head: weight (V, d), bias (V,)
generation/<task>/tokenizer.json    the tokenizer, for clients
generation/<task>/space/            public sets and maps, for token states in place of embeddings
generation/<task>/weights/<owner>/  encoded weights behind maps, made when they are first needed
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.encoders import EncoderCard, EncoderSettings
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.files import ArrayWriter, map_arrays
from sealign.generation.vocabulary import VocabularyHead
from sealign_server.store.files import (
    Document,
    by_age,
    checked_name,
    delete,
    is_name,
    private_directory,
    read_content,
    write_private,
)
from sealign_server.store.space import SpaceStore


class GenerationDocument(Document):
    """generation.json: what a task offers, and which model makes its states."""

    description: str = ""
    encoder: EncoderSettings
    encoder_card: EncoderCard
    vocabulary: int
    tokenizer: str
    tokenizer_bytes: int
    head: str


@dataclass(frozen=True)
class ModelHead:
    """What a causal model gives a generation task.

    Attributes:
        encoder: settings of the model.
        card: of the model.
        weight: of its head, (V, d).
        bias: (V,); None for zeros.
        tokenizer: its bytes.
    """

    encoder: EncoderSettings
    card: EncoderCard
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    tokenizer: bytes


class GenerationStore:
    """The generation tasks of a silo.

    Args:
        directory: of the tasks.
    """

    def __init__(self, directory: Path) -> None:
        self._root = directory

    def names(self) -> list[str]:
        """Return the names of the tasks, sorted."""
        return sorted(path.parent.name for path in self._root.glob("*/generation.json"))

    def version(self, name: str) -> str | None:
        """Return what names a task's document as it stands; None if there is no such task. One look at a file."""
        if not is_name(name):
            return None
        try:
            found = os.stat(f"{self._root}/{name}/generation.json")  # noqa: PTH116 - per query
        except OSError:
            return None
        return f"{found.st_ino}-{found.st_mtime_ns}"

    def document(self, name: str) -> GenerationDocument:
        """Return what a task offers.

        Raises:
            NotFoundError: there is no such task.
            StorageError: its document is damaged.
        """
        return GenerationDocument.read(self._directory(name) / "generation.json")

    def space(self, name: str) -> SpaceStore:
        """Return the space of a task's token states.

        Raises:
            NotFoundError, StorageError: as :meth:`document`.
        """
        return SpaceStore(self._directory(name) / "space", self.document(name).encoder_card)

    def create(self, name: str, model: ModelHead, description: str) -> None:
        """Keep a head as a task; its document last, since that makes the task.

        Raises:
            InvalidInputError: the name is not a short lower-case identifier, there is such a task already, or the head
                is not finite.
            StorageError: a file could not be written.
        """
        if checked_name(name) in self.names():
            raise InvalidInputError(f"there is a generation task {name} already; choose another name")
        weight = model.weight
        bias = np.zeros(len(weight), np.float32) if model.bias is None else model.bias.astype(np.float32)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InvalidInputError("the head holds NaN or infinite values; the model is damaged")
        directory = private_directory(self._root / name)
        digest = sha256(np.ascontiguousarray(weight).data)
        digest.update(bias.data)
        shapes = {"weight": (weight.shape, weight.dtype), "bias": (bias.shape, bias.dtype)}
        with ArrayWriter(directory / "head.safetensors", shapes, {"head": digest.hexdigest()}) as writer:
            writer.append("weight", weight)
            writer.append("bias", bias)
        write_private(directory / "tokenizer.json", model.tokenizer)
        GenerationDocument(
            description=description,
            encoder=model.encoder,
            encoder_card=model.card,
            vocabulary=len(weight),
            tokenizer=sha256(model.tokenizer).hexdigest(),
            tokenizer_bytes=len(model.tokenizer),
            head=digest.hexdigest(),
        ).write(directory / "generation.json")

    def load_head(self, name: str) -> VocabularyHead:
        """Return a task's head.

        Raises:
            NotFoundError: there is no such task.
            StorageError: the file is missing, damaged or not of this task.
        """
        document = self.document(name)
        arrays, metadata = map_arrays(self._directory(name) / "head.safetensors")
        weight, bias = arrays.get("weight"), arrays.get("bias")
        if weight is None or bias is None or metadata.get("head") != document.head or len(weight) != len(bias):
            raise StorageError(f"head.safetensors of task {name} is damaged; keep the task again")
        if len(weight) != document.vocabulary:
            raise StorageError(
                f"the head of task {name} has {len(weight)} outputs and its vocabulary {document.vocabulary}; keep the "
                "task again"
            )
        return VocabularyHead.of(weight, bias)

    def tokenizer(self, name: str) -> bytes:
        """Return a task's tokenizer.

        Raises:
            NotFoundError: there is no such task.
            StorageError: the file is missing or damaged.
        """
        document = self.document(name)
        content = read_content(self._directory(name) / "tokenizer.json")
        if sha256(content).hexdigest() != document.tokenizer:
            raise StorageError(f"tokenizer.json of task {name} is damaged; keep the task again")
        return content

    @contextmanager
    def weights(self, name: str, owner: str, revision: str) -> Iterator[Path]:
        """Yield the file of encoded weights, alone among the silo's processes."""
        directory = private_directory(self._directory(name) / "weights" / owner)
        with (directory / "lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield directory / f"{revision}.safetensors"

    def evict_weights(self, path: Path, most: int) -> None:
        """Delete the oldest encoded weights beside these, beyond ``most``; processes that use them keep them."""
        others = by_age([other for other in path.parent.glob("*.safetensors") if other != path])
        for old in others[: -(most - 1) or None]:
            delete(old)
            delete(old.with_suffix(".json"))

    def remove(self, name: str) -> None:
        """Delete a task; first the file that makes it, so that it stops being served.

        Raises:
            NotFoundError: there is no such task.
            StorageError: it could not be deleted.
        """
        directory = self._directory(name)
        try:
            (directory / "generation.json").unlink()
            shutil.rmtree(directory)
        except OSError as error:
            raise StorageError(f"generation task {name} could not be deleted whole: {error.strerror}") from error

    def _directory(self, name: str) -> Path:
        if self.version(name) is None:
            known = ", ".join(self.names()) or "none"
            raise NotFoundError(f"there is no generation task {name[:64]!r} here; generation tasks are: {known}")
        return self._root / name
