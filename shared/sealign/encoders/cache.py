"""Embeddings kept on disk by text, so that no text is embedded twice by the same encoder.

The texts themselves are not stored, only their SHA-256; the embeddings are, so a cache of private
texts is as private as their embeddings are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np

from sealign.encoders.encoder import Embeddings, Encoder, EncoderCard
from sealign.encoders.settings import LongTexts
from sealign.errors import StorageError

_AT_ONCE = 256
"""Texts embedded between two commits: what an interruption can lose."""

_LOOKUP = 500
"""Keys in one query, below SQLite's limit on parameters."""


class EmbeddingCache:
    """One encoder's embeddings, in one SQLite file named by the encoder's fingerprint.

    Several processes may use it at once (WAL mode). Rows that are there are never changed. Truncated and split texts
    have a file each, so that one is never taken for the other, nor for a text that was read whole.

    Args:
        directory: of the files.
        card: of the encoder.
        long_texts: what the encoder does with texts beyond its window.

    Raises:
        StorageError: the file cannot be opened, or is not such a cache.
    """

    def __init__(self, directory: Path, card: EncoderCard, long_texts: LongTexts = "refuse") -> None:
        suffix = "" if long_texts == "refuse" else f"-{long_texts}"
        self.path = directory / f"{card.fingerprint}{suffix}.sqlite"
        self._bytes = 4 * card.dimension
        with self._failing_clearly():
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = sqlite3.connect(self.path, timeout=60.0)
            self._connection.execute("PRAGMA page_size=16384")  # several rows a page
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings (key BLOB NOT NULL UNIQUE, row BLOB NOT NULL)"
                )

    def rows(self, texts: Sequence[str]) -> Embeddings:
        """Embeddings of texts that are all there, shape (n, d).

        Raises:
            StorageError: a text is not there, or a row is damaged.
        """
        keys = [_key(text) for text in texts]
        found = self._found(keys)
        if any(key not in found for key in keys):
            raise StorageError(f"{self.path} lacks some of the texts; embed them with CachedEncoder")
        content = b"".join(found[key] for key in keys)
        return np.frombuffer(content, dtype="<f4").reshape(len(keys), self._bytes // 4).astype(np.float32)

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are not there, each once, in their order."""
        by_key = {_key(text): text for text in texts}
        found = self._found(list(by_key))
        return [text for key, text in by_key.items() if key not in found]

    def add(self, texts: Sequence[str], rows: Embeddings) -> None:
        """Keep embeddings, shape (n, d), for good."""
        content = np.ascontiguousarray(rows, dtype="<f4")
        with self._failing_clearly(), self._connection:
            self._connection.executemany(
                "INSERT OR IGNORE INTO embeddings (key, row) VALUES (?, ?)",
                ((_key(text), row.tobytes()) for text, row in zip(texts, content, strict=True)),
            )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _found(self, keys: list[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._failing_clearly():
            for start in range(0, len(keys), _LOOKUP):
                some = keys[start : start + _LOOKUP]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, row FROM embeddings WHERE key IN ({marks})"  # noqa: S608 - question marks only
                found.update(self._connection.execute(query, some))
        if any(len(row) != self._bytes for row in found.values()):
            raise StorageError(f"{self.path} holds rows of another dimension: it is damaged; delete it")
        return found

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"the embedding cache {self.path} failed ({error}); delete it if it is damaged"
            ) from error


class CachedEncoder:
    """An encoder that looks into a cache first, and keeps what it embeds, batch after batch.

    An interrupted run goes on where it stopped.

    Args:
        encoder: embeds what is missing.
        directory: of the caches, one file for each encoder's fingerprint.

    Raises:
        StorageError: the cache cannot be opened.
    """

    def __init__(self, encoder: Encoder, directory: Path) -> None:
        self._encoder = encoder
        self.cache = EmbeddingCache(directory, encoder.card, getattr(encoder, "long_texts", "refuse"))

    @property
    def card(self) -> EncoderCard:
        return self._encoder.card

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        """Embed ``texts`` as :meth:`sealign.encoders.Encoder.encode` says.

        Raises:
            StorageError: the cache cannot be read or written.
        """
        self.fill(texts, progress=progress)
        return self.cache.rows(texts)

    def fill(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> None:
        """Embed and keep those of the texts that are not there yet.

        Raises:
            InvalidInputError, StorageError: as :meth:`encode`.
        """
        missing = self.cache.missing(texts)
        if progress is not None:
            progress(len(texts) - len(missing))
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            self.cache.add(some, self._encoder.encode(some, progress=progress))


def _key(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
