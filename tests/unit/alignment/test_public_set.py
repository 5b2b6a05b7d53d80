from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealign.alignment import PublicSet, public_sets
from sealign.errors import InvalidInputError, NotFoundError
from sealign.shipped import general_texts

TEXTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0\ufeff"), min_size=1).filter(str.strip),
    min_size=2,
    max_size=8,
    unique=True,
)


def test_digest_follows_its_definition() -> None:
    expected = hashlib.sha256(b"\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0a\x02\0\0\0\0\0\0\0\xc3\xa9").hexdigest()
    assert PublicSet(("a", "é")).digest == expected


def test_digest_depends_on_order_and_on_where_texts_end() -> None:
    digests = {PublicSet(texts).digest for texts in [("a", "bc"), ("bc", "a"), ("ab", "c")]}
    assert len(digests) == 3


@settings(deadline=None, max_examples=25)
@given(TEXTS)
def test_file_round_trip(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    directory = tmp_path_factory.mktemp("sets")
    expected = PublicSet(tuple(texts))
    for ending in ("\n", "\r\n"):
        path = directory / f"{len(ending)}.txt"
        path.write_bytes("".join(text + ending for text in texts).encode())
        read = PublicSet.from_file(path)
        assert (read.texts, len(read), read.digest) == (
            expected.texts,
            len(texts),
            expected.digest,
        )


def test_texts_join_in_their_order_unless_they_are_in_the_set() -> None:
    joined = PublicSet(("a", "b")).joined(["c", "b", "d", "c"])
    assert joined == PublicSet(("a", "b", "c", "d"))
    assert PublicSet(("a", "b")).joined(["b"]).digest == PublicSet(("a", "b")).digest


def test_last_line_needs_no_ending(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_text("one\ntwo")
    assert PublicSet.from_file(path).texts == ("one", "two")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\n\ntwo\n", "line 2 is empty"),
        (b"one\n \t\n", "line 2 is empty"),
        (b"one\ntwo\n\n", "line 3 is empty"),
        (b"one\ntwo\nthree\ntwo\n", "line 4 repeats line 2"),
        (b"one\ntwo\nthr\xffee\n", "line 3 is not UTF-8"),
        (b"one\ntwo\nthr\0ee\n", "line 3 contains a NUL"),
        (b"\xff\xfeo\0n\0e\0\n\0t\0w\0o\0", "line 1 is UTF-16"),
        (b"one\n", "no line 2"),
        (b"", "no line 1"),
    ],
)
def test_bad_lines_are_named_and_not_quoted(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "set.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        PublicSet.from_file(path)
    assert str(path) in str(caught.value)
    assert "three" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        PublicSet.from_file(tmp_path / "absent.txt")


def test_public_sets_are_named_by_their_files(tmp_path: Path) -> None:
    directory = tmp_path
    (directory / "encyclopaedia.txt").write_text("one\ntwo\n", encoding="utf-8")
    found = public_sets([str(directory / "encyclopaedia.txt")])
    assert {name: texts.texts for name, texts in found.items()} == {"encyclopaedia": ("one", "two")}
    with pytest.raises(NotFoundError):
        public_sets([str(directory / "absent.txt")])
    namesake = directory / "older" / "encyclopaedia.tsv"
    namesake.parent.mkdir()
    namesake.write_text("three\nfour\n", encoding="utf-8")
    with pytest.raises(InvalidInputError) as refused:
        public_sets([str(directory / "encyclopaedia.txt"), str(namesake)])
    assert str(directory / "encyclopaedia.txt") in str(refused.value)
    assert str(namesake) in str(refused.value)


def test_the_general_set_is_named_whatever_files_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("general").write_text("one\ntwo\n")
    assert PublicSet.named("general").texts == general_texts()
    for path in ("./general", Path("general")):
        assert PublicSet.named(path).texts == ("one", "two")
    some = public_sets(["general:40", "general"])
    assert {name: len(texts) for name, texts in some.items()} == {"general-40": 40, "general": len(general_texts())}
    assert some["general-40"].texts == general_texts()[:40]


@pytest.mark.parametrize("rows", ["", "1", "20001", "-5", "4k", "４０"])
def test_a_part_that_the_general_set_has_not_is_refused(rows: str) -> None:
    with pytest.raises(InvalidInputError, match="2 to 20000 rows"):
        PublicSet.named(f"general:{rows}")
