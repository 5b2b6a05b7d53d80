"""Measuring a task once, with its rows: see `sealign.heads.profile`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.alignment import MappedChannel
from sealign.errors import InvalidInputError
from sealign.heads.calibration import fit_temperature, log_losses, two_digits
from sealign.heads.discriminant import ClassStatistics, Outliers, discriminant_head
from sealign.heads.folds import folds_of
from sealign.heads.linear import LinearHead, checked_rows, class_indices
from sealign.heads.ood import auroc
from sealign.heads.profile import Measures, TaskProfile
from sealign.heads.publishing import published_fraction, standard_error, with_noise
from sealign.heads.served import OutputLayout, ServedHead

Matrix = NDArray[np.float64]
Indices = NDArray[np.intp]
Training = Callable[[Matrix, Sequence[str]], LinearHead]
"""Labelled embeddings, (n, d), to a head."""

BLURS: tuple[float, ...] = (0.1, 1.0, 3.0, 6.0, 10.0, 20.0, 40.0)
"""Noise of the blurs, in units of the embeddings' mean eigenvalue: from nothing lost to half of the answers."""

SHRINKAGES: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03)
"""Of discriminant heads, strongest first."""

FOLDS = 5
_JUDGES = slice(1, 6, 2)
"""Blurs by which the shrinkage is chosen."""
MEASURING_STEPS = FOLDS + len(BLURS[_JUDGES]) + len(BLURS)
"""Of about the same length: what a measurement trains and looks through."""
_SIMULATED_ROWS = 4000
_DRAWN_ROWS = 2000
"""Counterparts of rows behind a blur, at least: of few rows several each, so that their draw decides little."""
_TAIL_BOUNDS = (0.002, 0.5)


def measure_task(
    embeddings: ArrayLike,
    labels: Sequence[str],
    own: LinearHead,
    train: Training,
    *,
    outliers: ArrayLike | None = None,
    directions: int = 0,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> TaskProfile:
    """Measure a task's two kinds of heads by cross-fitting over five folds, behind each blur.

    Fractions carry noise from the operating system, drawn here; see `sealign.heads.publishing`.

    Args:
        embeddings: of the silo's encoder, (n, d), at least two per class.
        labels: one per row.
        own: the head that the silo serves where it knows nothing of a map.
        train: trains such a head on part of the rows; for an imported head, returns the head.
        outliers: embeddings of texts of another kind, (m, d), at least 20.
        directions: of the linear Mahalanobis score.
        seed: of the folds.
        progress: told of each of :data:`MEASURING_STEPS` steps when it is done.

    Raises:
        InvalidInputError: wrong shapes or labels, a class with fewer than two rows, or too few outliers.
    """
    from threadpoolctl import threadpool_limits  # of training only

    far = None if outliers is None else checked_rows(outliers)
    if far is not None and len(far) < 2 * FOLDS * 2:
        raise InvalidInputError(f"{len(far)} outlier texts are too few to judge by; give at least {4 * FOLDS}")
    step = progress or (lambda _: None)

    def trains(part: Matrix, names: Sequence[str]) -> LinearHead:
        head = train(part, names)
        step(1)
        return head

    # Threads of linear algebra wait for one another: matrices are small, and a busy machine takes ten times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        return _profile(_Folds.of(checked_rows(embeddings), labels, own, trains, seed), far, directions, step)


def _profile(folds: _Folds, far: Matrix | None, directions: int, step: Callable[[int], None]) -> TaskProfile:
    known = None if far is None else Outliers.of(far[::2])
    shrinkage = folds.shrinkage(known, step)
    behind = []
    for channel in folds.blurs:
        unseen = None if far is None else far[1::2]
        behind.append(_Blurred.of(folds, channel, known, unseen, shrinkage, directions))
        step(1)
    return TaskProfile(
        statistics=folds.everything,
        outliers=None if far is None else Outliers.of(far),
        shrinkage=shrinkage,
        rows=len(folds.rows),
        fitted=_joined([one.fitted for one in behind]),
        trained=_joined([one.trained for one in behind]),
        aurocs=np.array([one.auroc for one in behind]),
    )


def simulated(statistics: ClassStatistics) -> tuple[Matrix, Indices]:
    """Return the rows and classes that heads behind maps are measured with, of mapped statistics."""
    return statistics.simulated(_SIMULATED_ROWS)


def simulated_loss(logits: Matrix, targets: Indices) -> float:
    """Return the mean log-loss, at the best temperature, that says how hard a map makes a task for a head."""
    return max(float(log_losses(logits, targets).mean()), 1e-12)


@dataclass(frozen=True, eq=False)
class _Folds:
    """Rows in folds, with the statistics of the others and a head trained on them, for each fold."""

    rows: Matrix
    targets: Indices
    fold: Indices
    copies: int
    rest: tuple[ClassStatistics, ...]
    trained: tuple[LinearHead, ...]
    own: LinearHead
    everything: ClassStatistics

    @classmethod
    def of(cls, rows: Matrix, labels: Sequence[str], own: LinearHead, train: Training, seed: int) -> _Folds:
        targets = class_indices(labels, own.labels, len(rows))
        counts = np.bincount(targets, minlength=len(own.labels))
        if counts.min() < 2:
            name = own.labels[int(counts.argmin())]
            raise InvalidInputError(
                f"class {name!r} has {counts.min()} rows; give at least two, or leave the class out"
            )
        fold = folds_of(rows, targets, FOLDS, seed)
        names = np.array(labels)
        rest = [(rows[fold != number], names[fold != number].tolist()) for number in range(FOLDS)]
        return cls(
            rows,
            targets,
            fold,
            -(-_DRAWN_ROWS // len(rows)),
            tuple(ClassStatistics.of(*part, own.labels) for part in rest),
            tuple(train(*part) for part in rest),
            own,
            ClassStatistics.of(rows, labels, own.labels),
        )

    @cached_property
    def blurs(self) -> tuple[MappedChannel, ...]:
        whole = self.everything
        return tuple(MappedChannel.blur(whole.mean, whole.total, noise) for noise in BLURS)

    def shrinkage(self, outliers: Outliers | None, step: Callable[[int], None]) -> float:
        """The shrinkage with the smallest log-loss of rows left out, summed over some of the blurs."""
        losses = [0.0] * len(SHRINKAGES)
        for channel in self.blurs[_JUDGES]:
            mapped, behind = self.mapped(channel), self.behind(channel, outliers)
            for index, strength in enumerate(SHRINKAGES):
                outputs = self.outputs(mapped, behind.heads(strength, 0))
                losses[index] += float(log_losses(outputs, self.drawn_targets).mean())
            step(1)
        return SHRINKAGES[int(np.argmin(losses))]

    @property
    def drawn_targets(self) -> Indices:
        """Classes of :meth:`mapped`, (copies·n,)."""
        return np.tile(self.targets, self.copies)

    def mapped(self, channel: MappedChannel) -> Matrix:
        """Counterparts behind a blur, (copies·n, d): all rows, and then again with other noise."""
        draws = [channel.apply(self.rows, seed) for seed in range(self.copies)]
        return np.concatenate(draws, dtype=np.float64)

    def behind(self, channel: MappedChannel, outliers: Outliers | None) -> _Behind:
        """The statistics of each fold's other rows behind a blur."""
        return _Behind([part.through(channel) for part in self.rest], outliers and outliers.through(channel))

    def outputs(self, mapped: Matrix, heads: Sequence[ServedHead]) -> Matrix:
        """Outputs of each row's head, which was not fitted to it."""
        outputs, fold = np.empty((len(mapped), heads[0].layout.outputs)), np.tile(self.fold, self.copies)
        for number, head in enumerate(heads):
            outputs[fold == number] = head.outputs(mapped[fold == number])
        return outputs


@dataclass(frozen=True, eq=False)
class _Behind:
    """Statistics behind one blur, for each fold."""

    parts: Sequence[ClassStatistics]
    outliers: Outliers | None

    def heads(self, shrinkage: float, directions: int) -> list[ServedHead]:
        """A discriminant for each fold."""
        return [discriminant_head(part, shrinkage, self.outliers, directions) for part in self.parts]


@dataclass(frozen=True)
class _Measured:
    """Figures of one kind of head behind one blur."""

    loss: float
    accuracy: float
    temperature: float
    tails: dict[str, float]

    @classmethod
    def of(cls, layout: OutputLayout, folds: _Folds, real: Matrix, simulated: Matrix, classes: Indices) -> _Measured:
        """From outputs of rows that the heads have not seen, and of simulated ones by the head of all rows."""
        logits, targets, rows = layout.logits(real), folds.drawn_targets, len(folds.rows)
        drawn_logits = layout.logits(simulated)
        expected = fit_temperature(drawn_logits, classes)
        ratio = two_digits(fit_temperature(logits, targets) / expected)
        reached, drawn = (layout.scores(layout.cooled(outputs, ratio * expected)) for outputs in (real, simulated))
        accuracy = float(np.mean(logits.argmax(axis=1) == targets))
        return cls(
            loss=simulated_loss(drawn_logits, classes),
            accuracy=published_fraction(accuracy, rows),
            temperature=ratio,
            tails={name: _tail(reached[name], drawn[name], rows) for name in reached},
        )


@dataclass(frozen=True)
class _Blurred:
    """Figures behind one blur."""

    fitted: _Measured
    trained: _Measured
    auroc: float

    @classmethod
    def of(
        cls,
        folds: _Folds,
        channel: MappedChannel,
        outliers: Outliers | None,
        unseen: Matrix | None,
        shrinkage: float,
        directions: int,
    ) -> _Blurred:
        """Measure both kinds of heads; ``unseen`` are outliers that the statistics do not hold."""
        directions = 0 if outliers is None else directions
        statistics, mapped = folds.everything.through(channel), folds.mapped(channel)
        final = discriminant_head(statistics, shrinkage, outliers and outliers.through(channel), directions)
        drawn, classes = simulated(statistics)
        fitted = folds.outputs(mapped, folds.behind(channel, outliers).heads(shrinkage, directions))
        trained = folds.outputs(mapped, [ServedHead(head) for head in folds.trained])
        own = ServedHead(folds.own)
        separated = 0.0
        if unseen is not None:
            inside, outside = (
                final.layout.scores(outputs)["reject_margin"]
                for outputs in (fitted, final.outputs(channel.apply(unseen)))
            )
            separated = auroc(inside, outside)
        return cls(
            fitted=_Measured.of(final.layout, folds, fitted, final.outputs(drawn), classes),
            trained=_Measured.of(own.layout, folds, trained, own.outputs(drawn), classes),
            auroc=separated,
        )


def _tail(real: Matrix, drawn: Matrix, rows: int) -> float:
    """The fraction of simulated scores below what 95 % of the real ones reach, with the noise of so many rows."""
    tail = float(np.mean(drawn < np.quantile(real, 0.05)))
    return float(np.clip(with_noise(tail, standard_error(0.05, rows)), *_TAIL_BOUNDS))


def _joined(measured: Sequence[_Measured]) -> Measures:
    return Measures(
        losses=np.maximum.accumulate([one.loss for one in measured]),
        accuracies=np.array([one.accuracy for one in measured]),
        temperatures=np.array([one.temperature for one in measured]),
        tails={name: np.array([one.tails[name] for one in measured]) for name in measured[0].tails},
    )
