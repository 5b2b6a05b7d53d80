"""What an encoder is, and how it is described to the other side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sealign.encoders.checks import as_texts, checked_embeddings
from sealign.encoders.settings import LongTexts
from sealign.errors import InvalidInputError

Embeddings: TypeAlias = NDArray[np.float32]
"""Shape (n, d): row i is the embedding of text i."""

Progress: TypeAlias = Callable[[int], None]


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

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Embeddings:
        """Embed ``texts``: shape (n, d), rows in the order of the texts; (0, d) for none.

        Args:
            texts: n texts, each with something to read and at most 1,000,000 characters.
            progress: called after each batch with the number of texts that the batch finished.

        Raises:
            InvalidInputError: a text cannot be embedded (named by its number from 1, never quoted), or
                the model's output is not finite.
        """
        ...


@dataclass(frozen=True, eq=False)
class EmbeddedTexts:
    """Embeddings, and which texts were longer than the model's window.

    Attributes:
        rows: (n, d), in the order of the texts.
        long: indices, from 0, of the texts that were truncated or split; empty under ``refuse``.
        long_texts: what was done with them.
    """

    rows: Embeddings
    long: tuple[int, ...] = ()
    long_texts: LongTexts = "refuse"


class TextEncoder(ABC):
    """The one door of every encoder: texts are checked, rows are in order, failures are one clear error.

    Safe to call from several threads if the family's ``_embed`` is.

    Attributes:
        window: tokens that the model reads of a text, special tokens and prompt included; None if unknown.
        pooling: how token vectors become one vector; empty if unknown.
        long_texts: what :meth:`encode` does with texts beyond the window, unless a call says otherwise.
        remarks: what a user of the model should know, and what to do about it.
    """

    window: int | None = None
    pooling: str = ""
    long_texts: LongTexts = "refuse"
    remarks: tuple[tuple[str, str], ...] = ()

    @property
    @abstractmethod
    def card(self) -> EncoderCard:
        """The description under which maps are learned and found."""

    def encode(
        self, texts: Iterable[str], *, long_texts: LongTexts | None = None, progress: Progress | None = None
    ) -> Embeddings:
        """The rows of :meth:`embed`, shape (n, d)."""
        return self.embed(texts, long_texts=long_texts, progress=progress).rows

    def embed(
        self, texts: Iterable[str], *, long_texts: LongTexts | None = None, progress: Progress | None = None
    ) -> EmbeddedTexts:
        """Embed ``texts`` and report which were longer than the model's window.

        Args:
            texts: any iterable of strings: a list, a generator, a numpy array, a pandas Series.
            long_texts: ``refuse`` raises before any work. ``truncate`` reads the first tokens (the last ones where the
                tokenizer truncates on the left). ``split`` embeds windows of equal length that overlap by a quarter,
                takes the mean of their vectors, and scales it to norm 1 where the encoder normalises. By default as
                the encoder's settings say.
            progress: called after each batch with the number of texts that the batch finished.

        Raises:
            InvalidInputError: as :meth:`Encoder.encode`; a text beyond the window under ``refuse``.
        """
        given = as_texts(texts)
        try:
            embedded = self._embed(given, long_texts or self.long_texts, _Watched(progress))
        except _StoppedError as stopped:
            raise stopped.error from None
        except InvalidInputError:
            raise
        except Exception as error:
            raise InvalidInputError(
                f"the encoder {self.card.name} failed ({one_line(error)}); {_advice(error)}"
            ) from error
        rows = checked_embeddings(
            embedded.rows,
            shape=(len(given), self.card.dimension),
            normalise=self.card.normalised,
            encoder=self.card.name,
        )
        return EmbeddedTexts(rows, embedded.long, embedded.long_texts)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how long each text is to the model, in any unit: texts of like length are best embedded together."""
        return [len(text) for text in texts]

    @abstractmethod
    def _embed(self, texts: list[str], long_texts: LongTexts, progress: Progress) -> EmbeddedTexts:
        """Embed checked texts; the rows may be of any norm."""


class PlugIn(TextEncoder):
    """An encoder of another package behind the same door; it is responsible for its own window."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def card(self) -> EncoderCard:
        return self._encoder.card

    def _embed(self, texts: list[str], long_texts: LongTexts, progress: Progress) -> EmbeddedTexts:
        return EmbeddedTexts(self._encoder.encode(texts, progress=progress), long_texts=long_texts)


def lengths(encoder: Encoder, texts: Sequence[str]) -> list[int]:
    """Return how long each text is to an encoder; see :meth:`TextEncoder.lengths`."""
    return _door(encoder).lengths(texts)


def embed(
    encoder: Encoder,
    texts: Iterable[str],
    *,
    long_texts: LongTexts | None = None,
    progress: Progress | None = None,
) -> EmbeddedTexts:
    """Embed texts by any encoder; see :meth:`TextEncoder.embed`."""
    return _door(encoder).embed(texts, long_texts=long_texts, progress=progress)


def _door(encoder: Encoder) -> TextEncoder:
    return encoder if isinstance(encoder, TextEncoder) else PlugIn(encoder)


def one_line(error: BaseException) -> str:
    """The first sentence of an error of another library, at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _advice(error: Exception) -> str:
    if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
        return "lower batch_size or max_length"
    return "lower max_length if the texts are long, or choose another model"


class _StoppedError(Exception):
    """Carries an error of the caller's ``progress`` past the encoder's own errors."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Watched:
    """The caller's progress function; what it raises is not mistaken for the model's failure."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def __call__(self, count: int) -> None:
        if self._progress is None:
            return
        try:
            self._progress(count)
        except Exception as error:
            raise _StoppedError(error) from error
