"""What an encoder is, and how it is described to the other side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Embeddings: TypeAlias = NDArray[np.float32]
"""Shape (n, d): row i is the embedding of text i."""


class EncoderCard(BaseModel):
    """The public description of an encoder; it says nothing about the texts it has seen."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1, description="For people; two encoders may share it.")
    dimension: int = Field(ge=1, description="d, the length of an embedding.")
    fingerprint: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of all that decides the embeddings; names the map learned for them.",
    )
    normalised: bool = Field(default=True, description="Embeddings have Euclidean norm 1.")


class Encoder(Protocol):
    """Anything that embeds texts. Its class is constructed with an ``EncoderSettings`` alone."""

    @property
    def card(self) -> EncoderCard:
        """The description under which maps are learned and found."""
        ...

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        """Embed ``texts``: shape (n, d), rows in the order of the texts; (0, d) for none.

        Args:
            texts: n texts, each with something to read and at most 1,000,000 characters.
            progress: told, after each batch, how many texts that batch finished.

        Raises:
            InvalidInputError: a text cannot be embedded (named by its index, never quoted), or
                the model's output is not finite.
        """
        ...
