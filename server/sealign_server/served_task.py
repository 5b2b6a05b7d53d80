"""A task behind one kind of rows that clients encrypt: the head that is served, and its encrypted products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, MappedChannel
from sealign.ckks import Evaluator, PackingPlan, candidates, product_shape
from sealign.errors import InvalidInputError, StalePlanError
from sealign.heads import CalibratedHead, ServedHead, TrainedHead, head_behind
from sealign.protocol import TaskCard
from sealign_server.settings import ServeSettings
from sealign_server.store import CalibrationRows, SiloStore, TaskDocument


@dataclass(frozen=True)
class LoadedTask:
    """A task as it is kept: a head for the silo's own embeddings, and what is needed to fit others."""

    name: str
    document: TaskDocument
    trained: TrainedHead
    calibration: CalibrationRows | None

    @classmethod
    def load(cls, store: SiloStore, name: str) -> LoadedTask:
        """A task of a silo.

        Raises:
            StorageError, InvalidInputError: a file is missing or damaged.
        """
        return cls(name, *store.load_task(name), store.load_calibration(name))

    @cached_property
    def digest(self) -> bytes:
        """Of all that heads are made of."""
        own, calibration = self.trained, self.calibration
        parts: list[NDArray[np.generic]] = [own.head.weight, own.head.bias]
        if calibration is not None:
            parts.append(calibration.embeddings)
            if calibration.statistics is not None:
                parts += [calibration.statistics.counts, calibration.statistics.means, calibration.statistics.within]
        named = repr((own.head.labels, own.temperature, sorted(own.ood.items()), calibration and calibration.labels))
        return _digest(named, *parts)

    def behind(self, channel: MappedChannel | None, settings: ServeSettings) -> CalibratedHead:
        """The head for embeddings that come through a map's channel.

        Where nothing is known of the map, or the task was kept without rows to measure with, it is the silo's own
        with its own temperature and thresholds.
        """
        own, calibration = self.trained, self.calibration
        if calibration is None or channel is None:
            return CalibratedHead(ServedHead(own.head), own.temperature, None, own.ood)
        return head_behind(
            channel,
            own.head,
            calibration.embeddings,
            calibration.labels,
            calibration.statistics if settings.fit_heads else None,
            directions=min(settings.ood_directions, own.head.dimension),
        )

    def mean(self, channel: MappedChannel | None) -> NDArray[np.float64]:
        """Of the task's texts, (d,), as the map predicts them.

        Raises:
            InvalidInputError: it is not known.
        """
        if self.calibration is None or self.calibration.statistics is None:
            raise InvalidInputError("the mean of its texts was not kept; train it again to serve recentred rows")
        mean = self.calibration.statistics.mean
        return mean if channel is None else channel.expected(mean[None])[0]


class EncryptedHead:
    """A head as encrypted products, planned for each batch size.

    Args:
        head: takes the rows that clients encrypt.
        made_of: digest of what it was computed from. It names the revision, so that workers agree on it, whose
            floating point may differ in the last place.
        settings: batch sizes, precision, memory.
        row_norm: largest norm of such a row.

    Raises:
        InvalidInputError: no parameter set can hold its outputs.
    """

    def __init__(self, head: ServedHead, made_of: bytes, settings: ServeSettings, row_norm: float = 1.0) -> None:
        weight, bias = head.weight, head.bias
        self.revision = made_of.hex()[:16]
        self._evaluators: dict[str, Evaluator] = {}
        for rows in settings.batch_rows:
            shape = product_shape(weight, bias, rows=rows, precision=settings.precision, row_norm=row_norm)
            limit = settings.max_batch_weights_mb << 20
            plan = candidates(shape, settings.security_table, max_bytes=limit)[0]
            self._evaluators[plan.id] = Evaluator(plan, weight, bias)

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
class ServedTask:
    """A task behind one kind of rows."""

    calibrated: CalibratedHead
    encrypted: EncryptedHead

    @classmethod
    def at_silo(cls, task: LoadedTask, learned: AffineMap, recentred: bool, settings: ServeSettings) -> ServedTask:
        """For embeddings of a client's encoder, which the silo maps.

        Raises:
            InvalidInputError: the map does not fit the head, or there is no plan for their product.
        """
        calibrated = task.behind(learned.channel, settings)
        intercept = task.mean(learned.channel) if recentred else learned.intercept
        composed = calibrated.head.composed(learned.weight, intercept)
        made_of = _digest(
            repr((recentred, calibrated.head.layout)), task.digest, learned.weight, learned.intercept, learned.channel
        )
        # Embeddings have norm 1; centred on the mean of some, at most 2.
        return cls(calibrated, EncryptedHead(composed, made_of, settings, 2.0 if recentred else 1.0))

    @classmethod
    def at_client(
        cls,
        task: LoadedTask,
        mean: NDArray[np.float64],
        row_norm: float,
        channel: MappedChannel | None,
        recentred: bool,
        settings: ServeSettings,
    ) -> ServedTask:
        """For rows that a client has mapped and centred; the mean (d,) that they lack becomes part of the bias.

        Raises:
            InvalidInputError: there is no plan for the head.
        """
        calibrated = task.behind(channel, settings)
        centred = calibrated.head.composed(np.eye(len(mean)), task.mean(channel) if recentred else mean)
        made_of = _digest(repr((recentred, calibrated.head.layout)), task.digest, mean, channel)
        return cls(calibrated, EncryptedHead(centred, made_of, settings, row_norm))


def task_card(task: LoadedTask, served: ServedTask | None) -> TaskCard:
    """What a client is told about a task; without plans where it is not served to the client's rows."""
    card = TaskCard(
        name=task.name,
        description=task.document.description,
        labels=task.trained.head.labels,
        temperature=task.trained.temperature,
        held_out_accuracy=task.trained.held_out_accuracy,
        ood_thresholds=dict(task.trained.ood),
        plans=(),
        revision="",
    )
    if served is None:
        return card
    calibrated = served.calibrated
    return replace(
        card,
        temperature=calibrated.temperature,
        ood_thresholds=dict(calibrated.ood),
        plans=served.encrypted.plans,
        revision=served.encrypted.revision,
        reject=calibrated.head.layout.reject,
        directions=calibrated.head.layout.directions,
        mapped_accuracy=calibrated.accuracy,
    )


def _digest(named: str, *parts: bytes | NDArray[np.generic] | MappedChannel | None) -> bytes:
    sha = sha256(named.encode())
    for part in parts:
        if isinstance(part, MappedChannel):
            sha.update(_digest("channel", *(getattr(part, name) for name in part.ARRAYS)))
        elif isinstance(part, bytes):
            sha.update(part)
        elif part is not None:
            sha.update(np.ascontiguousarray(part).data)
    return sha.digest()
