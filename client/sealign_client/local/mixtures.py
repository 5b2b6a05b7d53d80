"""Mixtures that were fitted at alignment, one file per generation task and model, beside the maps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.errors import StorageError
from sealign.files import load_arrays, save_arrays
from sealign_client.local.directory import private
from sealign_client.local.maps import Lane
from sealign_client.results import Mixture

_FORMAT = "sealign.mixture/1"
_PERPLEXITIES = ("perplexity", "silo_perplexity", "own_perplexity")


@dataclass(frozen=True, eq=False)
class StoredMixture:
    """A mixture and what it was fitted with.

    Attributes:
        map: id of the map behind which the silo's distribution was seen.
        tokenizer: SHA-256 of the silo's tokenizer.
        mixture: the weight, and what it was fitted on.
        counts: how often each of the silo's tokens occurs in the public texts, (V,).
    """

    map: str
    tokenizer: str
    mixture: Mixture
    counts: NDArray[np.uint32]


def save_mixture(directory: Path, lane: Lane, stored: StoredMixture) -> None:
    """Keep the mixture of a lane; an earlier one is replaced.

    Raises:
        StorageError: the file could not be written.
    """
    private(directory)
    numbers = {name: repr(value) for name, value in asdict(stored.mixture).items()}
    metadata = {"format": _FORMAT, "map": stored.map, "tokenizer": stored.tokenizer, **numbers}
    save_arrays(_path(directory, lane), {"counts": stored.counts}, metadata)


def load_mixture(directory: Path, lane: Lane) -> StoredMixture | None:
    """Return the mixture of a lane; None if none was fitted.

    Raises:
        StorageError: its file is damaged.
    """
    path = _path(directory, lane)
    if not path.exists():
        return None
    arrays, metadata = load_arrays(path)
    try:
        if metadata["format"] != _FORMAT:
            raise ValueError("another format")  # noqa: TRY301
        perplexities = (float(metadata[name]) for name in _PERPLEXITIES)
        mixture = Mixture(float(metadata["weight"]), int(metadata["positions"]), *perplexities)
        return StoredMixture(metadata["map"], metadata["tokenizer"], mixture, arrays["counts"].astype(np.uint32))
    except (KeyError, ValueError, TypeError) as error:
        raise StorageError(f"The file {path}, which holds a mixture, is damaged. Delete it and align again.") from error


def _path(directory: Path, lane: Lane) -> Path:
    return directory / f"{lane.key('mixture')}.mixture"
