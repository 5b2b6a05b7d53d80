"""A silo: its spaces, its classification tasks, its generation tasks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.protocol import EMBEDDINGS, generation_space, generation_task_of
from sealign_server.ledger import Ledger
from sealign_server.serving.classification import Classification
from sealign_server.serving.generation import Generation
from sealign_server.serving.heavy import HeavyWork
from sealign_server.serving.space import Space
from sealign_server.settings import ServingOptions
from sealign_server.store import SharedExamples, SiloStore, SpaceStore

_Tasks = TypeVar("_Tasks", Classification, Generation)

_PRECISIONS = 4
"""Precisions of tiers, beside the silo's, whose heads one process holds."""


def spaces_of(store: SiloStore) -> dict[str, SpaceStore]:
    """Return the spaces of a silo by name; without those of generation tasks that are damaged."""
    spaces = {EMBEDDINGS: store.space}
    for name in store.generation.names():
        with suppress(StorageError):
            spaces[generation_space(name)] = store.generation.space(name)
    return spaces


def map_qualities(store: SiloStore) -> dict[str, list[float]]:
    """Return the explained variance of each map, by space; spaces without maps are left out."""
    found = {
        name: [record.card.explained_variance for record in space.map_records()]
        for name, space in spaces_of(store).items()
    }
    return {name: values for name, values in found.items() if values}


@dataclass(frozen=True)
class TaskStates:
    """Why tasks can be served to nobody, by name; None where they can be.

    Attributes:
        tasks: classification tasks; all of them, once they have been looked at.
        generation_tasks: likewise.
    """

    tasks: Mapping[str, str | None] = field(default_factory=dict)
    generation_tasks: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether there is anything that can be served."""
        return None in self.tasks.values() or None in self.generation_tasks.values()


class Silo:
    """All that a process serves.

    Args:
        store: the silo's directory.
        ledger: what is counted.
        options: how to serve.
    """

    def __init__(self, store: SiloStore, ledger: Ledger, options: ServingOptions) -> None:
        self._store = store
        self._options = options
        self._ledger = ledger
        self._coarser: OrderedDict[float, Classification] = OrderedDict()
        self._coarser_generation: OrderedDict[float, Generation] = OrderedDict()
        self.heavy = HeavyWork()
        self.long = HeavyWork()
        self._embeddings = Space(EMBEDDINGS, store.space, ledger, options)
        self.classification = Classification(store.tasks, self._embeddings, self.heavy, self.long, options)
        self.generation = Generation(store.generation, ledger, self.long, options)
        self.states = TaskStates()
        """As they were last looked at."""

    @property
    def name(self) -> str:
        """Chosen by the operator."""
        return self._store.document.name

    @property
    def shares_examples(self) -> bool:
        """Whether anybody is given shared examples."""
        return self._options.share_examples

    def classification_at(self, precision: float | None) -> Classification:
        """Return the classification tasks at the silo's precision, or at a coarser one that is asked for."""
        if precision is None or precision <= self._options.precision:
            return self.classification
        options = replace(self._options, precision=precision)
        made_of = (self._store.tasks, self._embeddings, self.heavy, self.long, options)
        return _held(self._coarser, precision, lambda: Classification(*made_of))

    def generation_at(self, precision: float | None) -> Generation:
        """Return the generation tasks at the silo's precision, or at a coarser one that is asked for."""
        if precision is None or precision <= self._options.generation_precision:
            return self.generation
        options = replace(self._options, generation_precision=precision)
        made_of = (self._store.generation, self._ledger, self.long, options)
        return _held(self._coarser_generation, precision, lambda: Generation(*made_of))

    def spaces(self) -> tuple[str, ...]:
        """Return the names of the spaces; a silo without an encoder has none but its generation tasks'."""
        return (EMBEDDINGS, *map(generation_space, self.generation.names()))

    def space(self, name: str) -> Space:
        """Return a space.

        Raises:
            NotFoundError: there is no such space.
            StorageError: its files are damaged.
        """
        if name == EMBEDDINGS:
            return self._embeddings
        task = generation_task_of(name)
        if task is None:
            raise NotFoundError(f"there is no space {name[:64]!r} here; spaces are: {', '.join(self.spaces())}")
        return self.generation.task(task).space

    def base_of(self, space: str, public_set: str) -> str | None:
        """Return the public set that shared examples have joined to make one of a space; None for others.

        Raises:
            NotFoundError: there is no such space or public set.
            StorageError: files are damaged.
        """
        return self.space(space).store.public_set(public_set).base

    def shared_examples(self, space: str, task: str, public_set: str) -> tuple[str, ...]:
        """Return texts of a task, for clients; they join the public set that the client names.

        The names of its labels are always among them, for they are on its card; its unlabelled texts only if the silo
        was told to share them.

        Raises:
            NotFoundError: there is no such task or public set, or the task has nothing to share.
            StorageError: files are damaged, or the joined set could not be written.
        """
        if space != EMBEDDINGS:
            raise InvalidInputError("shared examples are of classification tasks; they join the space of embeddings")
        names = self._store.tasks.label_names(task)
        texts = self._store.tasks.examples(task) if self._options.share_examples else None
        examples = SharedExamples.of([given for given in (texts, names) if given is not None])
        if examples is None:
            raise NotFoundError(
                f"task {task[:64]!r} shares no examples here, and its labels have no names in words. Align without "
                "--shared-examples, or ask the silo's operator for `sealign-server train --share COUNT` and "
                "`sealign-server serve --share-examples`"
            )
        self._embeddings.join(public_set, examples, task)
        return examples.texts

    def look_at_tasks(self) -> TaskStates:
        """Find out which classification tasks can be served; what is new is read."""
        faults = self.classification.faults()
        self.states = replace(self.states, tasks={name: faults.get(name) for name in self.classification.names()})
        return self.states

    def look_at_generation(self) -> TaskStates:
        """Find out which generation tasks can be served; what is new is read, which takes seconds."""
        faults = self.generation.faults()
        found = {name: faults.get(name) for name in self.generation.names()}
        self.states = replace(self.states, generation_tasks=found)
        return self.states

    @property
    def is_busy(self) -> bool:
        """Whether heavy work has begun that has not ended; what it has not written is made again."""
        return self.heavy.is_busy or self.long.is_busy

    def close(self) -> None:
        """End threads."""
        self.heavy.close()
        self.long.close()


def _held(held: OrderedDict[float, _Tasks], precision: float, make: Callable[[], _Tasks]) -> _Tasks:
    """Return what is served at a precision; beyond some, the least recently used is dropped with its memory."""
    if precision not in held:
        held[precision] = make()
    held.move_to_end(precision)
    while len(held) > _PRECISIONS:
        held.popitem(last=False)
    return held[precision]
