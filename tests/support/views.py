"""Linear views of random meanings in place of texts and language models, so that maps are good and tests are fast."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.encoders.settings import ENTRY_POINT_GROUP

Rows = NDArray[np.float32]

CLIENT_DIMENSION, SILO_DIMENSION, TEXTS = 24, 16, 2000
PUBLIC = PublicSet(tuple(f"public text {number}" for number in range(TEXTS)))

_TIED = (107, 118, 262, 266)
"""Of the queries, those whose two largest logits at the small silo are within the noise of an encryption."""


def clear_queries(count: int) -> list[str]:
    """Return so many queries that get the same label each time they are asked."""
    return [f"query {number}" for number in range(count + len(_TIED)) if number not in _TIED][:count]


def seed_of(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little")


class ViewEncoder:
    """Embeds a text as a noisy linear view of its meaning, which its characters decide."""

    def __init__(self, name: str, dimension: int) -> None:
        self.card = EncoderCard(name=name, dimension=dimension, fingerprint=sha256(name.encode()).hexdigest())
        self._view = np.random.default_rng(seed_of(name)).normal(size=(12, dimension))
        self.embedded = 0

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None, **_: Any) -> Rows:
        rows = np.empty((len(texts), self.card.dimension))
        for number, text in enumerate(texts):
            meaning = np.random.default_rng(seed_of(text)).normal(size=12) + 0.3
            noise = np.random.default_rng(seed_of(self.card.name + text)).normal(size=self.card.dimension)
            rows[number] = meaning @ self._view + 0.5 * noise
        self.embedded += len(texts)
        if progress is not None:
            progress(len(texts))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def client_encoder() -> ViewEncoder:
    return ViewEncoder("the client's", CLIENT_DIMENSION)


def loaded_client_encoder(settings: EncoderSettings) -> ViewEncoder:
    """For the entry point that :func:`installed_views` writes."""
    return client_encoder()


def installed_views(directory: Path) -> str:
    """PYTHONPATH of processes in which the client's encoder is an installed family, ``views``."""
    return installed_family(directory, "views", loaded_client_encoder)


def installed_family(directory: Path, family: str, loader: Callable[[EncoderSettings], Any]) -> str:
    """PYTHONPATH of processes in which a function of a module loads an installed family of encoders."""
    package = directory / f"{family}-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {family}\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\n{family} = {loader.__module__}:{loader.__name__}\n"
    )
    path = (str(directory), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", ""))
    return os.pathsep.join(filter(None, path))
