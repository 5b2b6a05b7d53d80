"""Recentring files: what a client knows of its own texts without any label, their mean and their scores.

A map learned over public texts predicts texts of another kind with an error that they have in common: it moves their
mean. A client that centres its embeddings on the mean of its own texts, and a silo that puts the mean of the task's
texts in its place, remove that error. Source: the re-centring of Conneau et al., "Word Translation Without Parallel
Data", ICLR 2018, section 2 (there for both languages, before the map).

Likewise, the silo's thresholds of out-of-distribution scores are those that 95 % of its own texts reach, as far as the
map predicts them. A client that has its texts classified knows which ones 95 % of *its* texts reach.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.errors import InvalidInputError, StorageError
from sealign.files import load_arrays, save_arrays
from sealign.heads import threshold_at_95
from sealign.protocol import TaskCard

MINIMUM_TEXTS = 50
"""With fewer, the error of the mean is no smaller than what it is to remove."""

MINIMUM_FOR_THRESHOLDS = 100
"""With this number, 95 % of further texts reach the threshold, give or take 2 % (one standard deviation)."""

_FORMAT = "sealign.recentring/1"


@dataclass(frozen=True)
class OwnThresholds:
    """What 95 % of the client's own texts reach, and whose scores they are.

    Attributes:
        task: of the silo.
        revision: of the task's head behind the map.
        map: id of the map.
        values: thresholds by score name.
    """

    task: str
    revision: str
    map: str
    values: dict[str, float]

    @classmethod
    def of(cls, task: TaskCard, map_id: str, outputs: NDArray[np.float64]) -> OwnThresholds:
        """Return the thresholds of outputs, (n, outputs), of the client's own texts.

        Raises:
            InvalidInputError: outputs of another shape than the task's, or that are not finite.
        """
        scores = task.layout.scores(outputs)
        values = {name: threshold_at_95(scores[name]) for name in task.ood_thresholds if name in scores}
        return cls(task.name, task.revision, map_id, values)

    def hold_for(self, task: TaskCard, map_id: str) -> bool:
        """Return whether these are thresholds of a task that is served behind a map; warn if they have expired."""
        if task.name != self.task or not task.plans:
            return False
        if (task.revision, map_id) == (self.revision, self.map):
            return True
        warnings.warn(
            f"The recentring file's thresholds for task {task.name} were measured with another map or head than are "
            "served now, so the silo's are used. Measure them again: sealign adapt --thresholds",
            stacklevel=2,
        )
        return False

    def put_in(self, task: TaskCard) -> TaskCard:
        """Return the card with these thresholds in place of the silo's."""
        return replace(task, ood_thresholds=task.ood_thresholds | self.values)


def require_enough_for_thresholds(texts: int) -> None:
    """Refuse early what would give thresholds that say little.

    Raises:
        InvalidInputError: fewer than 100 texts.
    """
    if texts < MINIMUM_FOR_THRESHOLDS:
        raise InvalidInputError(
            f"{texts} texts are too few to measure thresholds. Give at least {MINIMUM_FOR_THRESHOLDS}, or adapt "
            "without thresholds."
        )


@dataclass(frozen=True, eq=False)
class Recentring:
    """The mean of the client's own texts, and the thresholds that they reach.

    Attributes:
        encoder: fingerprint of the encoder that embedded them.
        mean: of the embeddings, (d,), float64, read-only. As private as a summary of the texts.
        rows: their number.
        thresholds: None if they were not measured.
    """

    encoder: str
    mean: NDArray[np.float64]
    rows: int
    thresholds: OwnThresholds | None = None

    def __post_init__(self) -> None:
        mean = np.array(self.mean, dtype=np.float64)
        if mean.ndim != 1 or not mean.size or not np.isfinite(mean).all():
            raise InvalidInputError("A recentring file holds one finite row. Make it again: sealign adapt")
        mean.flags.writeable = False
        object.__setattr__(self, "mean", mean)

    @classmethod
    def of(cls, embeddings: ArrayLike, encoder: str) -> Recentring:
        """Return the mean of embeddings, (n, d), of texts like those to be classified, of all classes as they come.

        Raises:
            InvalidInputError: fewer than 50 rows, or numbers that are not finite.
        """
        rows = np.asarray(embeddings, dtype=np.float64)
        if rows.ndim != 2 or len(rows) < MINIMUM_TEXTS:
            raise InvalidInputError(
                f"{len(rows)} texts are too few to adapt to. Give at least {MINIMUM_TEXTS}, drawn as queries will be."
            )
        return cls(encoder, rows.mean(axis=0), len(rows))

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically, for its owner's eyes only.

        Raises:
            StorageError: the file could not be written; an earlier one is intact.
        """
        metadata = {"format": _FORMAT, "encoder": self.encoder, "rows": str(self.rows)}
        if self.thresholds is not None:
            metadata["thresholds"] = json.dumps(asdict(self.thresholds))
        save_arrays(path, {"mean": self.mean}, metadata, mode=0o600)

    @classmethod
    def load(cls, path: Path, encoder: str) -> Recentring:
        """Read what :meth:`save` wrote, for an encoder named by its fingerprint.

        Raises:
            StorageError: missing or damaged.
            InvalidInputError: not a recentring file, or made with another encoder.
        """
        arrays, metadata = load_arrays(path)
        if metadata.get("format") != _FORMAT or "mean" not in arrays:
            raise InvalidInputError(f"{path} is not a recentring file. Make one: sealign adapt")
        if metadata.get("encoder") != encoder:
            raise InvalidInputError(f"{path} was made with another encoder. Make it again: sealign adapt")
        try:
            thresholds = OwnThresholds(**json.loads(metadata["thresholds"])) if "thresholds" in metadata else None
            return cls(encoder, arrays["mean"], int(metadata["rows"]), thresholds)
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged. Make it again: sealign adapt") from error
