"""What a client that applies its own map tells the silo about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class MapCovariances:
    """What a client that applies its own map can tell the silo about it, so that a channel can be fitted.

    With centred rows X of the client and Y of the silo, H = X(XᵀX + λ)⁻¹Xᵀ and Ŷ = HY, these are YᵀHY/n and
    YᵀH²Y/n. They depend on the client's encoder through H alone, which every rotation of its embedding space leaves
    as it is, and on no text but the public ones.

    Attributes:
        cross: covariance of target embeddings and their mapped counterparts, (d, d), symmetric for a ridge map;
            float32, read-only.
        mapped: covariance of the mapped counterparts, (d, d), float32, read-only.

    Raises:
        InvalidInputError: matrices that are not square and alike, not symmetric, or not finite.
    """

    cross: NDArray[np.float32]
    mapped: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("cross", "mapped"):
            array = np.array(getattr(self, name), dtype=np.float32)
            if array.ndim != 2 or not array.size or array.shape != np.shape(self.mapped)[::-1]:
                raise InvalidInputError(f"a map's covariances must be square and alike; {name} has shape {array.shape}")
            if not np.isfinite(array).all():
                raise InvalidInputError(f"a map's covariances hold numbers that are not finite ({name}); align again")
            array = array / 2 + array.T / 2  # no overflow, however large they are
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def dimension(self) -> int:
        return len(self.cross)
