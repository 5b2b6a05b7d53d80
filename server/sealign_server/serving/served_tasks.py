"""A version of a task, and the encrypted products that it becomes behind one kind of rows."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from time import perf_counter

import numpy as np
import structlog
from numpy.typing import NDArray

from sealign.alignment import MappedChannel
from sealign.ckks import Evaluator, PackingPlan, candidates, product_shape
from sealign.defaults import RECENTRED_NORM
from sealign.errors import InvalidInputError, SealignError
from sealign.heads import CalibratedHead, head_behind
from sealign_server import __version__
from sealign_server.serving.space import MappedRows
from sealign_server.settings import ServingOptions
from sealign_server.store import StoredTask

_log = structlog.get_logger()

_LARGE = 256
"""Classes beyond which a head takes seconds to fit and encode."""


@dataclass(frozen=True, eq=False)
class LoadedTask:
    """A version of a task, and a digest of all that heads are made of."""

    name: str
    version: str
    stored: StoredTask
    digest: bytes

    @property
    def size(self) -> int:
        """Number of classes."""
        return len(self.stored.trained.head.labels)

    @property
    def is_large(self) -> bool:
        """Whether its head takes seconds, for which other tasks are not to wait."""
        return self.size > _LARGE

    @classmethod
    def load(cls, name: str, version: str, stored: StoredTask) -> LoadedTask:
        """Return the task with its digest."""
        trained = stored.trained
        numbers = [trained.temperature, trained.precision, *(trained.ood[score] for score in sorted(trained.ood))]
        state = sha256(b"sealign task v1\0")
        for label in trained.head.labels:
            state.update(len(label).to_bytes(8, "little") + label.encode("utf-8", "surrogatepass"))
        for array in (trained.head.weight, trained.head.bias, np.array(numbers)):
            state.update(np.ascontiguousarray(array, dtype="<f8").data)
        if stored.profile is not None:
            state.update(stored.profile.digest)
        return cls(name, version, stored, state.digest())

    def behind(self, channel: MappedChannel | None, options: ServingOptions) -> CalibratedHead:
        """Return the head for embeddings that come through a map's channel.

        Where nothing is known of the map, or the task was kept without a profile, it is the silo's trained one.
        """
        trained, profile = self.stored.trained, self.stored.profile
        if profile is None or channel is None:
            return CalibratedHead.unmapped(trained)
        directions = min(options.ood_directions, trained.head.dimension)
        return head_behind(channel, trained.head, profile, directions=directions, fit=options.fit_heads)

    def mean(self, channel: MappedChannel | None) -> NDArray[np.float64]:
        """Return the mean of the task's texts, (d,), as the map predicts them.

        Raises:
            InvalidInputError: it is not known.
        """
        if self.stored.profile is None:
            raise InvalidInputError("the mean of its texts was not kept; train it again to serve recentred rows")
        mean = self.stored.profile.statistics.mean
        return mean if channel is None else channel.expected(mean[None])[0]


@dataclass(frozen=True, eq=False)
class ServedTask:
    """A task behind one kind of rows, as encrypted products for each batch size.

    Attributes:
        task: the version that it was made of.
        calibrated: the head, for mapped embeddings, with what is promised about it.
        is_calibrated: whether that was measured for the map.
        revision: names all that it was made of; workers agree on it, whose floating point may differ in the last place.
        evaluators: by plan.
    """

    task: LoadedTask
    calibrated: CalibratedHead
    is_calibrated: bool
    revision: str
    evaluators: dict[str, Evaluator]

    @classmethod
    def make(cls, task: LoadedTask, mapped: MappedRows, recentred: bool, options: ServingOptions) -> ServedTask:
        """Fit the head, or take the one that was fitted before; compose and encode.

        Raises:
            InvalidInputError: the map does not fit the head, or there is no plan for their product.
        """
        calibrated = _calibrated(task, mapped, options)
        intercept = task.mean(mapped.channel) if recentred else mapped.intercept
        weight = np.eye(len(intercept)) if mapped.weight is None else mapped.weight
        head = calibrated.head.composed(weight, intercept)
        # Rows of the silo's map centred on the mean of some are at most twice as long; a client's are centred anyway.
        row_norm = mapped.row_norm * (RECENTRED_NORM if recentred and mapped.weight is not None else 1.0)
        layout = calibrated.head.layout
        shape = f"{recentred}\0{layout.outputs}\0{layout.reject}\0{layout.directions}\0{options.fit_heads}"
        made_of = sha256(b"\0".join((b"sealign served task v1", shape.encode(), task.digest, mapped.key)))
        # A head whose labels are close together needs finer logits than the operator asks for.
        precision = min(options.precision, calibrated.precision)
        evaluators = {}
        for rows in options.batch_rows:
            wanted = product_shape(head.weight, head.bias, rows=rows, precision=precision, row_norm=row_norm)
            plan = candidates(wanted, options.security_table, max_bytes=options.batch_bytes)[0]
            evaluators[plan.id] = Evaluator(plan, head.weight, head.bias)
        known = mapped.channel is not None and task.stored.profile is not None
        return cls(task, calibrated, known, made_of.hexdigest()[:32], evaluators)

    @property
    def byte_count(self) -> int:
        """Memory of the encoded weights."""
        return sum(evaluator.plan.cost.weight_bytes for evaluator in self.evaluators.values())

    @property
    def plans(self) -> tuple[PackingPlan, ...]:
        """The plans that clients may use."""
        return tuple(evaluator.plan for evaluator in self.evaluators.values())


def _calibrated(task: LoadedTask, mapped: MappedRows, options: ServingOptions) -> CalibratedHead:
    """Return a task's head behind a map: as it is kept beside the map, or else fitted, and kept there."""
    kept = mapped.fitted
    if kept is None or task.stored.profile is None:
        return task.behind(mapped.channel, options)
    numbers = f"{options.ood_directions}\0{options.fit_heads}\0{__version__}".encode()
    made_of = sha256(b"\0".join((b"sealign fitted head v1", numbers, task.digest, mapped.key))).hexdigest()
    with kept.alone(task.name):
        found = kept.load(task.name, made_of)
        if found is None:
            began = perf_counter()
            found = task.behind(mapped.channel, options)
            _log.info(
                "head fitted",
                task=task.name,
                owner=mapped.owner,
                labels=len(found.head.head.labels),
                ms=round(1e3 * (perf_counter() - began)),
            )
            kept.save(task.name, made_of, found)
    return found


def unservable(task: LoadedTask, options: ServingOptions) -> str | None:
    """Return why a task can be served to nobody; None if it can be, to the silo's own embeddings at least."""
    own = task.behind(None, options)
    precision = min(options.precision, own.precision)
    try:
        shape = product_shape(own.head.weight, own.head.bias, rows=1, precision=precision, row_norm=1.0)
        candidates(shape, options.security_table, max_bytes=options.batch_bytes)
    except SealignError as error:
        return str(error)
    return None
