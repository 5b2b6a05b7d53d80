"""Canaries of a client: public texts' rows, what the silo answered them at first, and how it has answered since."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import inf, log, log1p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.errors import StorageError
from sealign.files import load_arrays, save_arrays
from sealign_client.local.directory import private
from sealign_client.results import CanaryReport

ROWS = 32
"""Public texts whose rows are kept for an encoder."""
FALSE_ALARM_RATE = 1e-6
"""Chance that an honest silo ever raises the alarm about one version of a task, however many answers are compared."""
_MISSED = 3e-12
"""Chance that an output is further from the product than its plan promises; see `PackingPlan`."""
_SHARE = 0.1
"""Share of wrong answers that the test bets on: one at the beginning, or two later, are enough for the alarm."""
_FORMAT = "sealign.canaries/1"

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """A sequential test of whether the silo still answers as at first.

    Under an honest silo an answer is wrong with a known, tiny chance p. For each number k, the product from the k-th
    answer on of q/p for a wrong one and (1-q)/(1-p) for a right one has expectation 1 at most, and so has the mean of
    these products with weights 1/(k·(k+1)). By Ville's inequality that ever exceeds 1/a with a chance of at most a.

    Attributes:
        compared, wrong: answers.
        log_started: logarithm of the weighted products that have begun.
        evidence: largest logarithm of their mean so far.
    """

    compared: int = 0
    wrong: int = 0
    log_started: float = -inf
    evidence: float = 0.0

    def with_answer(self, is_right: bool, outputs: int) -> Tally:
        """Return the tally with one more answer of so many outputs."""
        chance = min(2 * _MISSED * outputs, _SHARE / 2)
        number = self.compared + 1
        factor = log1p(-_SHARE) - log1p(-chance) if is_right else log(_SHARE / chance)
        started = float(np.logaddexp(self.log_started, -log(number * (number + 1)))) + factor
        mean = float(np.logaddexp(started, -log(number + 1)))
        return Tally(number, self.wrong + (not is_right), started, max(self.evidence, mean))

    @property
    def is_alarm(self) -> bool:
        """Whether an honest silo would have answered so with a chance of `FALSE_ALARM_RATE` at most."""
        return self.evidence >= -log(FALSE_ALARM_RATE)

    @property
    def confidence(self) -> float:
        """1 less the chance that an honest silo looks as bad as this."""
        return -float(np.expm1(-self.evidence))


@dataclass(frozen=True, eq=False)
class Baseline:
    """What the silo answered to canaries at first, and the tally since.

    Attributes:
        task, revision: what was asked.
        expected: outputs, (n, C); NaN where there is no answer yet.
        tolerance: promised absolute error of these outputs.
    """

    task: str
    revision: str
    expected: Matrix
    tolerance: float
    tally: Tally = Tally()

    @property
    def unknown(self) -> NDArray[np.intp]:
        """Numbers of the canaries that have no answer yet."""
        return np.flatnonzero(np.isnan(self.expected).any(axis=1))

    def with_answers(self, numbers: NDArray[np.intp], outputs: Matrix, tolerance: float) -> Baseline:
        """Return the baseline with answers to canaries: the first ones are kept, others compared and counted.

        Args:
            numbers: of the canaries, (m,).
            outputs: that came, (m, C).
            tolerance: promised absolute error of these.
        """
        expected, tally, kept = self.expected.copy(), self.tally, self.tolerance
        for number, row in zip(numbers, outputs, strict=True):
            if np.isnan(expected[number]).any():
                expected[number], kept = row, max(kept, tolerance)
            else:
                is_right = bool(np.abs(expected[number] - row).max() <= self.tolerance + tolerance)
                tally = tally.with_answer(is_right, len(row))
        return replace(self, expected=expected, tolerance=kept, tally=tally)

    @property
    def report(self) -> CanaryReport:
        """What a person should know."""
        tally = self.tally
        missed = 1.0 if not tally.compared else -float(np.expm1(log(0.01) / tally.compared))
        return CanaryReport(self.task, tally.compared, tally.wrong, tally.is_alarm, tally.confidence, missed)


class CanaryStore:
    """Rows of canaries and their baselines in a directory, beside the maps.

    Args:
        directory: holds a file for each encoder, and one for each version of a task that was asked.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def draw(self, encoder: str, rows: NDArray[np.floating]) -> None:
        """Keep some rows of a public set, drawn at random, as the canaries of an encoder.

        Args:
            encoder: its fingerprint.
            rows: embeddings, (n, d).

        Raises:
            StorageError: they could not be written.
        """
        drawn = sorted(secrets.SystemRandom().sample(range(len(rows)), min(ROWS, len(rows))))
        private(self._directory)
        save_arrays(self._rows_path(encoder), {"rows": rows[drawn].astype(np.float32)}, {"format": _FORMAT})

    def rows(self, encoder: str) -> NDArray[np.float32] | None:
        """Return the rows of an encoder's canaries, (n, d); None if none were drawn.

        Raises:
            StorageError: the file is damaged.
        """
        path = self._rows_path(encoder)
        return load_arrays(path)[0]["rows"] if path.exists() else None

    def baseline(self, task: str, revision: str, prepared: Matrix, outputs: int) -> Baseline:
        """Return what is known of one version of a task.

        Args:
            task, revision: of its card.
            prepared: the canaries as they are encrypted, (n, d): through the map, recentred.
            outputs: of the task.

        Raises:
            StorageError: the file is damaged.
        """
        path = self._baseline_path(task, revision, prepared)
        if not path.exists():
            return Baseline(task, revision, np.full((len(prepared), outputs), np.nan), 0.0)
        return _read(path)

    def keep(self, baseline: Baseline, prepared: Matrix) -> None:
        """Write a baseline.

        Raises:
            StorageError: it could not be written.
        """
        facts = {"format": _FORMAT, "task": baseline.task, "revision": baseline.revision}
        numbers = json.dumps({**asdict(baseline.tally), "tolerance": baseline.tolerance})
        path = self._baseline_path(baseline.task, baseline.revision, prepared)
        save_arrays(path, {"expected": baseline.expected}, {**facts, "numbers": numbers})

    def reports(self) -> list[CanaryReport]:
        """Return what is known of every version of a task, by name; versions of one task with alarms first.

        Raises:
            StorageError: a file is damaged.
        """
        found = [_read(path).report for path in self._directory.glob("*.baseline")]
        return sorted(found, key=lambda report: (report.task, not report.is_alarm, -report.compared))

    def forget(self) -> int:
        """Delete all baselines, so that the next answers are the first ones, and return how many."""
        paths = list(self._directory.glob("*.baseline"))
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)

    def _rows_path(self, encoder: str) -> Path:
        return self._directory / f"{encoder[:32]}.canaries"

    def _baseline_path(self, task: str, revision: str, prepared: Matrix) -> Path:
        of = sha256("\0".join((task, revision, "")).encode())
        of.update(np.ascontiguousarray(prepared).tobytes())
        return self._directory / f"{of.hexdigest()[:32]}.baseline"


def _read(path: Path) -> Baseline:
    arrays, metadata = load_arrays(path)
    try:
        if metadata["format"] != _FORMAT:
            raise ValueError("another format")  # noqa: TRY301
        numbers = json.loads(metadata["numbers"])
        tolerance = float(numbers.pop("tolerance"))
        return Baseline(metadata["task"], metadata["revision"], arrays["expected"], tolerance, Tally(**numbers))
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"The file {path}, which holds answers to canaries, is damaged. Delete it.") from error
