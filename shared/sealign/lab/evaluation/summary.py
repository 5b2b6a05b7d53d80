"""A report's cells brought together: one row for each pair, dataset and public set, over its seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from sealign.lab.evaluation.methods import CEILING, DEFAULT, NATIVE, PLAIN
from sealign.lab.evaluation.results import ROC_POINTS, Cell, Encrypted, Measured, MethodResult, Ood, Report


@dataclass(frozen=True)
class LostClass:
    """A class of which a method recognises less than the silo does natively; shares are means over seeds."""

    label: str
    native: float
    aligned: float
    taken_for: str


@dataclass(frozen=True)
class Row:
    """One pair, dataset and public set.

    Attributes:
        cells: one a seed.
        references: methods that no client of the protocol has.
        with_shared: methods that take texts of the task, which the silo would have to share.
    """

    pair: str
    dataset: str
    public: str
    cells: tuple[Cell, ...]
    references: tuple[str, ...]
    with_shared: tuple[str, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods measured with every seed, in the order of tables."""
        first, *others = self.cells
        return tuple(name for name in first.methods if all(name in cell.methods for cell in others))

    @cached_property
    def best(self) -> str | None:
        """The method with the largest mean accuracy, of those that a client has and that need no shared texts."""
        return self._best(name for name in self.methods if name not in self.references + self.with_shared)

    @cached_property
    def best_shared(self) -> str | None:
        """The one of those that need them."""
        return self._best(name for name in self.methods if name in self.with_shared)

    @property
    def default_shared(self) -> str:
        """The default with shared texts; empty if it was not measured."""
        return next((name for name in self.methods if name in self.with_shared and name.endswith(f"+{DEFAULT}")), "")

    def _best(self, names: Iterable[str]) -> str | None:
        return max(names, key=lambda name: self._mean(name), default=None)

    @property
    def closed(self) -> float | None:
        """Share of the gap between the plain map and native accuracy that the best method closes; None if no gap."""
        return None if self.best is None else self.closed_by(self.best)

    def closed_by(self, method: str) -> float | None:
        """The same for any method; None if it was not measured."""
        if not {NATIVE, PLAIN, method} <= set(self.methods):
            return None
        gap = self._mean(NATIVE) - self._mean(PLAIN)
        return (self._mean(method) - self._mean(PLAIN)) / gap if gap > 0 else None

    @property
    def sent(self) -> str:
        """The method to show encrypted: the best one, if every seed sent it, or else the default."""
        best = self.best
        if best is not None and all(cell.methods[best].encrypted is not None for cell in self.cells):
            return best
        return DEFAULT

    @property
    def lost(self) -> float:
        """By how much the best method is below native accuracy; negative where it is above."""
        return self._mean(NATIVE) - self._mean(self.best or PLAIN)

    @property
    def standard_error(self) -> float:
        """Of native accuracy, for the number of test texts."""
        return self.standard_error_of(NATIVE)

    def standard_error_of(self, method: str) -> float:
        """Of a method's accuracy, for the number of test texts: what other texts of the kind would change."""
        accuracy = self._mean(method)
        return float((accuracy * (1 - accuracy) / self.cells[0].test) ** 0.5)

    @property
    def sizes(self) -> tuple[str, str]:
        """Numbers of training and of test texts, for a table."""
        return f"{self.cells[0].train}", f"{self.cells[0].test}"

    def examples(self, method: str) -> int:
        """Test texts that every seed sent through the encrypted path, at most."""
        sent = [cell.methods[method].encrypted for cell in self.cells if method in cell.methods]
        return max((found.examples for found in sent if found is not None), default=0)

    def falls_short(self, method: str, others: Sequence[str], by: float = 0.01) -> bool | None:
        """Whether the best of some other methods is better by more than a difference; None if one was not measured."""
        if not {method, *others} <= set(self.methods):
            return None
        return max(map(self._mean, others)) - self._mean(method) > by

    def accuracy(self, method: str) -> Measured | None:
        """Over seeds."""
        return self.over_seeds(method, lambda result: result.accuracy)

    def encrypted(self, method: str, value: Callable[[Encrypted], float]) -> Measured | None:
        """A measure of the encrypted path, over the seeds that have it."""
        return self.over_seeds(method, lambda result: value(result.encrypted) if result.encrypted else None)

    def scores(self, method: str) -> tuple[str, ...]:
        """Out-of-distribution scores of a method."""
        return tuple(self.cells[0].methods[method].ood) if method in self.methods else ()

    def best_score(self, method: str) -> str | None:
        """The score with the largest mean area under the curve."""

        def area(score: str) -> float:
            measured = self.ood(method, score, lambda ood: ood.auroc)
            return 0.0 if measured is None else measured.mean

        return max(self.scores(method), key=area, default=None)

    def ood(
        self, method: str, score: str, value: Callable[[Ood], float | None], *, encrypted: bool = False
    ) -> Measured | None:
        """A measure of a score, over seeds; of the encrypted path, over those that have it."""

        def of(result: MethodResult) -> float | None:
            found = result.ood if not encrypted else result.encrypted.ood if result.encrypted else {}
            return value(found[score]) if score in found else None

        return self.over_seeds(method, of)

    def roc(self, method: str, score: str, *, encrypted: bool = False) -> list[float]:
        """Mean curve over seeds, at `ROC_POINTS`; empty if there is none."""
        points = [
            self.ood(method, score, lambda ood, at=index: ood.roc[at], encrypted=encrypted)  # type: ignore[misc]
            for index in range(len(ROC_POINTS))
        ]
        return [point.mean for point in points if point is not None]

    def curve(self, method: str) -> dict[int, Measured]:
        """Accuracy by number of public texts."""
        if method not in self.methods:
            return {}
        sizes = sorted({size for cell in self.cells for size in cell.methods[method].curve})
        measured = {size: self.over_seeds(method, lambda result, at=size: result.curve.get(at)) for size in sizes}  # type: ignore[misc]
        return {size: value for size, value in measured.items() if value is not None}

    def cell_mean(self, value: Callable[[Cell], float]) -> float:
        """Mean over seeds of what all methods share."""
        return sum(map(value, self.cells)) / len(self.cells)

    def lost_classes(self, method: str, most: int = 6) -> list[LostClass]:
        """The classes of which the method loses most, and what it takes them for most often."""
        if NATIVE not in self.methods or method not in self.methods:
            return []
        lost = []
        for label in self.cells[0].methods[NATIVE].recall:
            native, aligned = (
                sum(cell.methods[name].recall[label] for cell in self.cells) / len(self.cells)
                for name in (NATIVE, method)
            )
            if aligned < native:
                lost.append(LostClass(label, native, aligned, self._taken_for(method, label)))
        return sorted(lost, key=lambda entry: entry.aligned - entry.native)[:most]

    def _taken_for(self, method: str, label: str) -> str:
        counts: dict[str, int] = {}
        for cell in self.cells:
            for confusion in cell.methods[method].confusions:
                if confusion.label == label:
                    counts[confusion.taken_for] = counts.get(confusion.taken_for, 0) + confusion.count
        return max(counts, key=lambda other: counts[other], default="")

    def _mean(self, method: str) -> float:
        measured = self.accuracy(method)
        return 0.0 if measured is None else measured.mean

    def over_seeds(self, method: str, value: Callable[[MethodResult], float | None]) -> Measured | None:
        """Any figure of a method, over the seeds that have it."""
        found = (value(cell.methods[method]) for cell in self.cells if method in cell.methods)
        return Measured.of([number for number in found if number is not None])


class Summary:
    """A report by pair, dataset and public set."""

    def __init__(self, report: Report) -> None:
        self.report = report
        grouped: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in report.cells:
            grouped.setdefault((cell.pair, cell.dataset, cell.public), []).append(cell)
        self.rows = tuple(Row(*key, tuple(cells), report.references, report.shared) for key, cells in grouped.items())
        self.pairs = tuple(dict.fromkeys(row.pair for row in self.rows))
        self.datasets = tuple(dict.fromkeys(row.dataset for row in self.rows))
        self.publics = tuple(dict.fromkeys(row.public for row in self.rows))

    def of(self, pair: str, dataset: str | None = None) -> list[Row]:
        """Rows of a pair, and of a dataset."""
        return [row for row in self.rows if row.pair == pair and dataset in (None, row.dataset)]

    def open_gaps(self) -> Iterator[tuple[Row, str]]:
        """Rows whose best method closes less than half of the gap, and the reason as far as figures give one."""
        for row in self.rows:
            if row.closed is not None and row.closed < 0.5:
                yield row, self._why_open(row)

    def _why_open(self, row: Row) -> str:
        if row.lost <= 2 * row.standard_error:
            return f"within two standard errors of native over {row.cells[0].test} test texts"
        ceiling = row.closed_by(CEILING)
        if ceiling is not None and ceiling < 0.5:
            return f"a map over the task's own texts closes {share(ceiling)}: the client's encoder is the limit"
        if ceiling is not None and row.closed is not None and row.closed >= ceiling / 2:
            return f"most of what a map over the task's own texts closes, {share(ceiling)}"
        others = [other for other in self.of(row.pair, row.dataset) if (other.closed or 0.0) >= 0.5]
        if others:
            best = max(others, key=lambda other: other.closed or 0.0)
            return f"these public texts are unlike the task's: over {best.public} {share(best.closed)} is closed"
        return "no public set is like the task's texts" + (
            "" if ceiling is None else f": a map over these closes {share(ceiling)}"
        )

    def favourable(self, pair: str) -> Iterator[Row]:
        """For each dataset the public set with which the best method is most accurate."""
        for dataset in self.datasets:
            rows = self.of(pair, dataset)
            if rows:
                yield max(rows, key=_best_accuracy)

    def left_out(self) -> list[tuple[str, str, Sequence[str]]]:
        """Methods that could not be applied, why, and where."""
        found: dict[tuple[str, str], dict[str, None]] = {}
        for cell in self.report.cells:
            for method, reason in cell.left_out.items():
                found.setdefault((method, reason), {})[f"{cell.pair}, {cell.dataset}, {cell.public}"] = None
        return [(method, reason, list(where)) for (method, reason), where in found.items()]


def _best_accuracy(row: Row) -> float:
    measured = row.accuracy(row.best) if row.best is not None else None
    return 0.0 if measured is None else measured.mean


def mean_of(measured: Sequence[Measured | None]) -> Measured | None:
    """Of means; None if one is missing."""
    found = [one.mean for one in measured if one is not None]
    return None if len(found) < len(measured) else Measured(sum(found) / len(found), None, len(found))


def percent(measured: Measured | None) -> str:
    """In percent with its standard deviation."""
    if measured is None:
        return "–"
    return f"{100 * measured.mean:.1f}" + ("" if measured.std is None else f" ± {100 * measured.std:.1f}")


def points(value: float) -> str:
    """A difference of accuracies, in percentage points."""
    return f"{100 * value:.1f}"


def with_error(measured: Measured | None, standard_error: float) -> str:
    """A mean in percent, and the standard error that the number of test texts gives it, in brackets."""
    return "–" if measured is None else f"{100 * measured.mean:.1f} ({100 * standard_error:.1f})"


def share(value: float | None) -> str:
    """In whole percent."""
    return "–" if value is None else f"{100 * value:.0f} %"
