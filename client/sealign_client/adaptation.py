"""Label-free adaptation: what a client knows of its own texts without any label, their mean embedding.

A map learned over public text predicts texts of another kind with an error that they have in common: it moves their
mean. A client that centres its embeddings on the mean of its own texts, and a silo that puts the mean of the task's
texts in its place, take that error out. Source: the re-centring of Conneau et al., "Word Translation Without Parallel
Data", ICLR 2018, section 2 (there for both languages, before the map).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.errors import InvalidInputError
from sealign.files import load_arrays, save_arrays

MINIMUM_TEXTS = 50
"""With fewer, the error of the mean is no smaller than what it is to take out."""

_FORMAT = "sealign.adaptation/1"


@dataclass(frozen=True, eq=False)
class Adaptation:
    """The mean of the client's own texts.

    Attributes:
        encoder: fingerprint of the encoder that embedded them.
        mean: of the embeddings, (d,), float64, read-only. As private as a summary of the texts.
        rows: how many there were.
    """

    encoder: str
    mean: NDArray[np.float64]
    rows: int

    def __post_init__(self) -> None:
        mean = np.array(self.mean, dtype=np.float64)
        if mean.ndim != 1 or not mean.size or not np.isfinite(mean).all():
            raise InvalidInputError("an adaptation's mean must be one finite row; adapt again")
        mean.flags.writeable = False
        object.__setattr__(self, "mean", mean)

    @classmethod
    def of(cls, embeddings: ArrayLike, encoder: str) -> Adaptation:
        """Of embeddings, (n, d), of texts like those that will be classified, of all classes as they come.

        Raises:
            InvalidInputError: fewer than 50 rows, or numbers that are not finite.
        """
        rows = np.asarray(embeddings, dtype=np.float64)
        if rows.ndim != 2 or len(rows) < MINIMUM_TEXTS:
            raise InvalidInputError(
                f"{len(rows)} texts are too few to adapt to; give at least {MINIMUM_TEXTS}, drawn as queries will be"
            )
        return cls(encoder, rows.mean(axis=0), len(rows))

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically, for its owner's eyes only.

        Raises:
            StorageError: the file could not be written; an earlier one is intact.
        """
        metadata = {"format": _FORMAT, "encoder": self.encoder, "rows": str(self.rows)}
        save_arrays(path, {"mean": self.mean}, metadata, mode=0o600)

    @classmethod
    def load(cls, path: Path, encoder: str) -> Adaptation:
        """Read what :meth:`save` wrote, for an encoder named by its fingerprint.

        Raises:
            StorageError: missing or damaged.
            InvalidInputError: not an adaptation, or made with another encoder.
        """
        arrays, metadata = load_arrays(path)
        if metadata.get("format") != _FORMAT or "mean" not in arrays:
            raise InvalidInputError(f"{path} is not an adaptation; make one with: sealign adapt")
        if metadata.get("encoder") != encoder:
            raise InvalidInputError(f"{path} was made with another encoder; adapt again: sealign adapt")
        return cls(encoder, arrays["mean"], int(metadata["rows"]))
