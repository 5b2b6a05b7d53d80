"""The demo's claims about its texts: public text is not R8, and outliers are neither."""

from __future__ import annotations

import pytest

from deploy.demo import data
from sealign.alignment import PublicSet
from sealign.errors import InvalidInputError


@pytest.fixture(scope="module")
def public() -> list[str]:
    return data.public_texts(2000)


def test_public_texts_are_a_public_set_and_deterministic(public: list[str]) -> None:
    assert len(PublicSet(tuple(public))) == 2000  # distinct and not empty, or it would raise
    assert data.public_texts(2000) == public


def test_public_texts_hold_no_document_of_r8(public: list[str]) -> None:
    inside = [row.text for row in data.reuters_r8("train") + data.reuters_r8("test")]
    assert len(inside) == 5485 + 2189
    assert not set(public) & set(inside)
    # Nor the beginning of one: public passages are at most some sixty words.
    beginnings = {" ".join(text.split()[:40]) for text in inside if len(text.split()) >= 40}
    assert not beginnings & {" ".join(text.split()[:40]) for text in public}


def test_outliers_were_never_public_nor_in_r8(public: list[str]) -> None:
    newswire, books = data.foreign_newswire(500), data.book_excerpts()
    assert (len(set(newswire)), len(set(books))) == (500, 140)
    inside = [row.text for row in data.reuters_r8("train") + data.reuters_r8("test")]
    assert not set(newswire) & set(inside)
    beginnings = {" ".join(text.split()[:20]) for text in newswire + books}
    assert not beginnings & {" ".join(text.split()[:20]) for text in public}


def test_topics_of_outliers_are_neither_public_nor_in_r8() -> None:
    foreign, public = ({row.label for row in data._outside_r8(public=kind)} for kind in (False, True))
    assert (len(foreign), len(public)) == (15, 29)
    assert not foreign & public
    assert not (foreign | public) & {row.label for row in data.reuters_r8("train")}


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "find_spec", lambda _: None)
    with pytest.raises(InvalidInputError, match="pip install"):
        data.reuters_r8("test")
