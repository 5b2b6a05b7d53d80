"""The embeddings of an evaluation: made once for each encoder, then read from the cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from sealign.app.progress import progress
from sealign.encoders import EncoderSettings, load_encoder
from sealign.encoders.cache import CachedEncoder, EmbeddingCache
from sealign.encoders.encoder import TextEncoder
from sealign.lab.evaluation.context import Rows, Sides
from sealign.lab.evaluation.results import EncoderResult
from sealign.lab.evaluation.selection import Work
from sealign.lab.evaluation.spec import EvaluationSpec, PairSpec
from sealign.lab.evaluation.texts import Corpus, Texts

_REMEMBERED = 32
"""Arrays kept in memory: the cells of one pair and dataset share most."""


class EmbeddedCorpus:
    """Reads embeddings of a corpus by the encoders of a spec, once they are made.

    Args:
        spec: names the encoders.
        corpus: the texts.
        directory: of the cache.
    """

    def __init__(self, spec: EvaluationSpec, corpus: Corpus, directory: Path) -> None:
        self._spec = spec
        self._corpus = corpus
        self._directory = directory
        self._caches: dict[str, EmbeddingCache] = {}
        self._loaded: dict[str, TextEncoder] = {}
        self.encoders: dict[str, EncoderResult] = {}
        self._rows = lru_cache(maxsize=_REMEMBERED)(self._read)

    def embed(self, work: Sequence[Work]) -> None:
        """Embed all texts of these cells that are not in the cache, one encoder after the other.

        Raises:
            InvalidInputError: an encoder cannot be loaded, or a text not embedded.
            StorageError: the cache fails.
        """
        for name in dict.fromkeys(side for item in work for side in (item.pair.client, item.pair.silo)):
            texts = list(
                dict.fromkeys(text for item in work if name in _sides(item.pair) for text in self._texts(item))
            )
            encoder = load_encoder(EncoderSettings.parse(self._spec.encoders[name]))
            cached = CachedEncoder(encoder, self._directory)
            with progress(f"embedding with {name}", len(texts)) as advance:
                cached.fill(texts, progress=advance)
            self._caches[name] = cached.cache
            self.encoders[name] = EncoderResult(
                name=encoder.card.name,
                dimension=encoder.card.dimension,
                fingerprint=encoder.card.fingerprint,
                max_length=encoder.window or 0,
                pooling=encoder.pooling,
            )

    def add(self, name: str, texts: Sequence[str]) -> Rows:
        """Embed more texts by an encoder of :meth:`embed`, and return their rows; it is loaded where some are new.

        Raises:
            InvalidInputError, StorageError: as :meth:`embed`.
        """
        cache = self._caches[name]
        if cache.missing(texts):
            if name not in self._loaded:
                self._loaded = {name: load_encoder(EncoderSettings.parse(self._spec.encoders[name]))}
            CachedEncoder(self._loaded[name], self._directory).fill(texts)
        return cache.rows(texts)

    def sides(self, pair: PairSpec, texts: Texts) -> Sides:
        """Embeddings by both encoders of a pair."""
        return Sides(self._rows(pair.client, texts), self._rows(pair.silo, texts))

    def _read(self, encoder: str, texts: Texts) -> Rows:
        rows = self._caches[encoder].rows(texts)
        rows.flags.writeable = False
        return rows

    def _texts(self, item: Work) -> Iterable[str]:
        dataset = self._corpus.dataset(item.pair, item.dataset)
        yield from dataset.train.texts
        yield from dataset.unseen.texts
        yield from dataset.test.texts
        yield from dataset.outliers
        yield from dataset.exposure
        yield from dataset.names
        if dataset.description:
            yield dataset.description
        yield from self._corpus.public(item.pair, item.public, item.seed)


def _sides(pair: PairSpec) -> tuple[str, str]:
    return pair.client, pair.silo
