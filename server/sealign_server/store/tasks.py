"""Classification tasks: versions in directories of their own, of which one file names the current one.

tasks/<task>/current           name of the version that is served; it makes the task
tasks/<task>/<version>/task.json        its description
tasks/<task>/<version>/head.safetensors  the trained head
tasks/<task>/<version>/profile.safetensors  class statistics and measures, to fit heads to maps
tasks/<task>/<version>/shared.json       texts that clients may get for alignment (optional)
tasks/<task>/<version>/shared.safetensors  their embeddings
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from sealign.defaults import MAX_EXAMPLES
from sealign.errors import NotFoundError, SealignError, StorageError
from sealign.files import load_arrays, save_arrays
from sealign.heads import TaskProfile, TrainedHead
from sealign_server.store.files import (
    Document,
    by_age,
    checked_name,
    is_name,
    private_directory,
    read_json,
    write_private,
)

_SHARED, _NAMES = "shared.json", "names.json"
_KEPT_VERSIONS = 2
"""Versions on disk: the current one, and the one before, which other processes may be reading."""


class TaskDocument(Document):
    """task.json: what a task is about, for people."""

    description: str = ""


class Synthetic(BaseModel):
    """How texts that stand for private ones were made; see `sealign.synthetic`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float
    delta: float
    rounds: int
    scale: float
    model: str | None


@dataclass(frozen=True)
class SharedExamples:
    """Texts that stand for a task's, without labels, that clients may be given.

    Attributes:
        texts: k of them.
        embeddings: the silo's, (k, d).
        synthetic: how they were made; None for texts of the task itself.
    """

    texts: tuple[str, ...]
    embeddings: NDArray[np.float32]
    synthetic: Synthetic | None = None

    @classmethod
    def of(cls, parts: Sequence[SharedExamples]) -> SharedExamples | None:
        """Return the distinct texts of all parts, as many as clients accept, the first ones first; None for none."""
        rows: dict[str, NDArray[np.float32]] = {}
        for part in parts:
            for text, row in zip(part.texts, part.embeddings, strict=True):
                rows.setdefault(text, row)
        texts = tuple(rows)[:MAX_EXAMPLES]
        return cls(texts, np.stack([rows[text] for text in texts])) if texts else None


@dataclass(frozen=True)
class StoredTask:
    """A task as it is kept.

    Attributes:
        trained: a head for the silo's own embeddings.
        description: for people; None keeps an earlier version's.
        profile: None to serve the head's own thresholds for every map.
        examples: None to share none but synthetic ones of an earlier version.
        names: of its labels, as texts; None if none is in words.
    """

    trained: TrainedHead
    description: str | None = None
    profile: TaskProfile | None = None
    examples: SharedExamples | None = None
    names: SharedExamples | None = None

    @property
    def synthetic(self) -> Synthetic | None:
        """How the examples were made, if they are synthetic."""
        return None if self.examples is None else self.examples.synthetic


class TaskStore:
    """The classification tasks of a silo.

    Args:
        directory: of the tasks.
        forget: deletes what is kept of a task elsewhere, once the task is deleted.
    """

    def __init__(self, directory: Path, forget: Callable[[str], None]) -> None:
        self._directory = directory
        self._forget = forget

    def names(self) -> list[str]:
        """Return the names of the tasks, sorted."""
        return sorted(path.parent.name for path in self._directory.glob("*/current"))

    def holds(self, name: str) -> bool:
        """Return whether there is such a task; cheap enough for each query."""
        return is_name(name) and os.path.exists(f"{self._directory}/{name}/current")  # noqa: PTH110 - half as long

    def version(self, name: str) -> str | None:
        """Return the current version of a task; None if there is no such task."""
        if not is_name(name):
            return None
        try:
            return (self._directory / name / "current").read_text(encoding="ascii")
        except OSError:
            return None

    def save(self, name: str, task: StoredTask) -> None:
        """Publish a version of a task by one rename; whatever cuts this off, the earlier version is served.

        Synthetic texts of an earlier version stay if the new one has nothing to share: they have cost privacy.

        Raises:
            InvalidInputError: the name is not a short lower-case identifier.
            StorageError: a file could not be written; the earlier version is served.
        """
        earlier = self.version(checked_name(name)) is not None
        description, examples = task.description, task.examples
        if description is None:
            description = self.description(name) if earlier else ""
        if examples is None and earlier:
            with suppress(StorageError):  # training again mends what is damaged
                examples = _only_synthetic(self.examples(name))
        version = secrets.token_hex(8)
        directory = private_directory(self._directory / checked_name(name) / version)
        try:
            TaskDocument(description=description).write(directory / "task.json")
            if task.profile is not None:
                task.profile.save(directory / "profile.safetensors")
            if examples is not None:
                _save_examples(directory / _SHARED, examples)
            if task.names is not None:
                _save_examples(directory / _NAMES, task.names)
            task.trained.save(directory / "head.safetensors")
            write_private(directory.parent / "current", version.encode())
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        self._prune(directory.parent, version)

    def share(self, name: str, examples: SharedExamples) -> None:
        """Put other texts in the place of those that a task may share; all else stays as it is.

        Raises:
            NotFoundError, StorageError: as :meth:`load` and :meth:`save`.
        """
        self.save(name, replace(self.load(name), examples=examples))

    def load(self, name: str) -> StoredTask:
        """Return the current version of a task.

        Raises:
            NotFoundError: there is no such task.
            StorageError: a file is missing or damaged.
        """
        directory = self._current(name)
        profile = directory / "profile.safetensors"
        try:
            trained = TrainedHead.load(directory / "head.safetensors")
            measured = TaskProfile.load(profile) if profile.exists() else None
        except SealignError as error:
            raise StorageError(f"a file of task {name} cannot be used: {error}") from error
        return StoredTask(
            trained,
            TaskDocument.read(directory / "task.json").description,
            measured,
            _load_examples(directory / _SHARED),
            _load_examples(directory / _NAMES),
        )

    def description(self, name: str) -> str:
        """Return a task's description.

        Raises:
            NotFoundError, StorageError: there is no such task, or the file is damaged.
        """
        return TaskDocument.read(self._current(name) / "task.json").description

    def examples(self, name: str) -> SharedExamples | None:
        """Return the texts that a task may share; None where there are none, or no such task.

        Raises:
            StorageError: a file is damaged, or the texts were changed after they were embedded.
        """
        return None if self.version(name) is None else _load_examples(self._current(name) / _SHARED)

    def label_names(self, name: str) -> SharedExamples | None:
        """Return the names of a task's labels, as texts; None where none is in words, or there is no such task.

        Raises:
            StorageError: as :meth:`examples`.
        """
        return None if self.version(name) is None else _load_examples(self._current(name) / _NAMES)

    def remove(self, name: str) -> None:
        """Delete a task; first the file that makes it, so that it stops being served.

        Raises:
            NotFoundError: there is no such task.
            StorageError: it could not be deleted.
        """
        directory = self._current(name).parent
        try:
            (directory / "current").unlink()
            self._forget(name)
            shutil.rmtree(directory)
        except OSError as error:
            raise StorageError(f"task {name} could not be deleted whole: {error.strerror}") from error

    def _current(self, name: str) -> Path:
        version = self.version(name)
        if version is None:
            known = ", ".join(self.names()) or "none"
            raise NotFoundError(f"there is no task {name[:64]!r} here; tasks are: {known}")
        return self._directory / name / version

    @staticmethod
    def _prune(directory: Path, current: str) -> None:
        versions = by_age([path for path in directory.iterdir() if path.is_dir() and path.name != current])
        for old in versions[: -(_KEPT_VERSIONS - 1)]:
            shutil.rmtree(old, ignore_errors=True)


def _only_synthetic(examples: SharedExamples | None) -> SharedExamples | None:
    return None if examples is None or examples.synthetic is None else examples


def _save_examples(path: Path, examples: SharedExamples) -> None:
    digest = {"texts": _digest(examples.texts)}
    save_arrays(path.with_suffix(".safetensors"), {"embeddings": examples.embeddings}, digest)
    facts: dict[str, object] = {"texts": examples.texts}
    if examples.synthetic is not None:
        facts["synthetic"] = examples.synthetic.model_dump()
    content = json.dumps(facts, ensure_ascii=False, indent=1)
    write_private(path, content.encode("utf-8", "surrogatepass"))


def _load_examples(path: Path) -> SharedExamples | None:
    if not path.exists():
        return None
    content = read_json(path)
    try:
        texts = tuple(content["texts"])  # type: ignore[index]
        made = content.get("synthetic")  # type: ignore[attr-defined]
        synthetic = None if made is None else Synthetic.model_validate(made)
    except (AttributeError, KeyError, TypeError, ValidationError) as error:
        raise StorageError(f"{path} is damaged; train the task again") from error
    arrays, metadata = load_arrays(path.with_suffix(".safetensors"))
    if metadata.get("texts") != _digest(texts):
        raise StorageError(f"{path} holds other texts than were embedded; train the task again")
    return SharedExamples(texts, arrays["embeddings"], synthetic)


def _digest(texts: tuple[str, ...]) -> str:
    return sha256(json.dumps(texts).encode()).hexdigest()
