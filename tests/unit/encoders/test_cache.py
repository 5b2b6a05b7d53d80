from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from sealign.encoders import Embeddings, EncoderCard
from sealign.encoders.cache import CachedEncoder, EmbeddingCache
from sealign.errors import StorageError


class CountingEncoder:
    """Embeds a text as its length and first character; counts, and can fail after some texts."""

    def __init__(self, fingerprint: str = "0" * 64, limit: int = 1 << 30) -> None:
        self.card = EncoderCard(name="counting", dimension=2, fingerprint=fingerprint)
        self.embedded: list[str] = []
        self.limit = limit

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        if len(self.embedded) + len(texts) > self.limit:
            raise KeyboardInterrupt
        self.embedded += texts
        if progress is not None:
            progress(len(texts))
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def test_a_text_is_embedded_once_whatever_it_comes_with(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    told: list[int] = []
    cached = CachedEncoder(encoder, tmp_path)
    first = cached.encode(["b", "aaa", "b"], progress=told.append)
    np.testing.assert_array_equal(first, [[1, 98], [3, 97], [1, 98]])
    again = CachedEncoder(encoder, tmp_path).encode(["cc", "b", "aaa"], progress=told.append)
    np.testing.assert_array_equal(again, [[2, 99], [1, 98], [3, 97]])
    assert encoder.embedded == ["b", "aaa", "cc"]
    assert sum(told) == 6
    assert again.dtype == np.float32
    assert cached.encode([]).shape == (0, 2)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(700)]
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(CountingEncoder(limit=600), tmp_path).encode(texts)
    encoder = CountingEncoder()
    assert len(CachedEncoder(encoder, tmp_path).encode(texts)) == 700
    assert encoder.embedded == texts[512:]


def test_encoders_do_not_share(tmp_path: Path) -> None:
    one, other = CountingEncoder(), CountingEncoder("1" * 64)
    CachedEncoder(one, tmp_path).encode(["a"])
    CachedEncoder(other, tmp_path).encode(["a"])
    assert one.embedded == other.embedded == ["a"]


def test_texts_are_not_stored(tmp_path: Path) -> None:
    cached = CachedEncoder(CountingEncoder(), tmp_path)
    cached.encode(["a private matter"])
    cached.cache.close()
    assert all(b"private" not in path.read_bytes() for path in tmp_path.iterdir())


def test_missing_and_damaged(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    cache = CachedEncoder(encoder, tmp_path).cache
    with pytest.raises(StorageError, match="lacks some"):
        cache.rows(["a"])
    cache.add(["a"], np.zeros((1, 3), dtype=np.float32))
    with pytest.raises(StorageError, match="another dimension"):
        cache.rows(["a"])
    cache.close()
    cache.path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match="delete it"):
        EmbeddingCache(tmp_path, encoder.card)
