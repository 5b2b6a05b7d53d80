"""What a space holds: rows of a public set, the record of a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealign.protocol import MapCard, PublicSetCard
from sealign_server.store.files import Document

OPERATOR = "operator"
"""Identity whose maps everybody may use."""


@dataclass(frozen=True)
class PublicRows:
    """The silo's rows of a public set, (n, d): row i for text i, or for token i of a generation task."""

    card: PublicSetCard
    rows: NDArray[np.float32] | NDArray[np.float16]


class MapRecord(Document):
    """<id>.json: a map's card, whose it is, and how long the rows are that it takes."""

    identity: str
    row_norm: float
    card: MapCard
