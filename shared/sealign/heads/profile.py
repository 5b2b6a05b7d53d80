"""What a silo measures of a task once, with its labelled embeddings, so that no map ever meets them.

A client chooses its map, and hears how good the head behind it is. Measured on the silo's rows, each such answer would
be a question about single rows that the client may ask at will. So rows are used once, at training, behind blurs of
growing strength that no client chooses. Behind a map, rows are drawn from Gaussian classes with the task's statistics
(`ClassStatistics.simulated`), which is too good to be true by as much as the profile says: a map is as hard for a head
as the blur at which simulated rows have the same log-loss, and what was measured there with real rows holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError
from sealign.files import load_arrays, save_arrays
from sealign.heads.discriminant import ClassStatistics, Outliers

Matrix = NDArray[np.float64]

_FORMAT = "sealign.task-profile/3"
_STATISTICS = ("counts", "means", "within")
_KINDS = ("fitted", "trained")
_FIGURES = ("losses", "accuracies", "temperatures")


@dataclass(frozen=True, eq=False)
class Measures:
    """Figures of one kind of head behind each blur, of rows that the head was not fitted to.

    Attributes:
        losses: log-loss of simulated rows, ascending, (blurs,).
        accuracies: (blurs,).
        temperatures: of real rows, in units of the one that simulated rows need, (blurs,). A map scales a trained
            head's logits in its own way, so that no temperature holds for another map.
        tails: by out-of-distribution score, the fraction of simulated rows below the value that 95 % of real rows
            reach, (blurs,).
    """

    losses: Matrix
    accuracies: Matrix
    temperatures: Matrix
    tails: Mapping[str, Matrix]

    def at(self, loss: float, values: Matrix) -> float:
        """Interpolate figures, (blurs,), for a map behind which simulated rows have this log-loss."""
        return float(np.interp(np.log(loss), np.log(self.losses), values))


@dataclass(frozen=True, eq=False)
class TaskProfile:
    """A task's class statistics, and what was measured once with its rows.

    Attributes:
        statistics: of all labelled embeddings.
        outliers: texts of another kind; None if the task has no class of outliers.
        shrinkage: of discriminant heads.
        rows: number of labelled embeddings.
        fitted: of the discriminant.
        trained: of the silo's trained or imported head.
        aurocs: of outliers that the head was not fitted to against rows of the task, (blurs,); zeros without outliers.
    """

    statistics: ClassStatistics
    outliers: Outliers | None
    shrinkage: float
    rows: int
    fitted: Measures
    trained: Measures
    aurocs: Matrix

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of it: names in JSON, then each array's name, shape and little-endian bytes."""
        sha = sha256(self._metadata().encode())
        for name, array in sorted(self._arrays().items()):
            sha.update(f"{name}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array, dtype="<f8").data)
        return sha.digest()

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically, readable by its owner only.

        Raises:
            StorageError: the file could not be written; the previous one is intact.
        """
        save_arrays(path, dict(self._arrays()), {"format": _FORMAT, "profile": self._metadata()}, mode=0o600)

    @classmethod
    def load(cls, path: Path) -> TaskProfile:
        """Read what :meth:`save` wrote.

        Raises:
            StorageError: missing, or not a safetensors file.
            InvalidInputError: a safetensors file that is not a whole profile.
        """
        arrays, metadata = load_arrays(path)
        if metadata.get("format") != _FORMAT:
            raise InvalidInputError("the file is not a task's profile; train the task again")
        try:
            facts = json.loads(metadata["profile"])
            outliers = Outliers(arrays["outliers.mean"], arrays["outliers.covariance"]) if facts["outliers"] else None
            statistics = ClassStatistics(tuple(facts["labels"]), *(arrays[name] for name in _STATISTICS))
            return cls(
                statistics=statistics,
                outliers=outliers,
                shrinkage=float(facts["shrinkage"]),
                rows=int(facts["rows"]),
                fitted=_measures(arrays, "fitted"),
                trained=_measures(arrays, "trained"),
                aurocs=np.asarray(arrays["aurocs"], dtype=np.float64),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"the task's profile is damaged ({error}); train the task again") from error

    def _metadata(self) -> str:
        labels, outliers = list(self.statistics.labels), self.outliers is not None
        facts = {"labels": labels, "shrinkage": self.shrinkage, "rows": self.rows, "outliers": outliers}
        return json.dumps(facts, sort_keys=True)

    def _arrays(self) -> dict[str, Matrix]:
        arrays: dict[str, Matrix] = {name: getattr(self.statistics, name) for name in _STATISTICS}
        arrays["aurocs"] = self.aurocs
        if self.outliers is not None:
            arrays |= {"outliers.mean": self.outliers.mean, "outliers.covariance": self.outliers.covariance}
        for kind in _KINDS:
            measures: Measures = getattr(self, kind)
            arrays |= {f"{kind}.{name}": getattr(measures, name) for name in _FIGURES}
            arrays |= {f"{kind}.tails.{name}": tail for name, tail in measures.tails.items()}
        return arrays


def _measures(arrays: Mapping[str, NDArray[np.generic]], kind: str) -> Measures:
    prefix = f"{kind}.tails."
    wide = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items() if name.startswith(kind)}
    tails = {name.removeprefix(prefix): array for name, array in wide.items() if name.startswith(prefix)}
    return Measures(**{name: wide[f"{kind}.{name}"] for name in _FIGURES}, tails=tails)
