from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.lines import LONGEST_LINE, iterate_lines, read_lines


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\0\ufeff"), min_size=1), max_size=6))
def test_as_many_texts_as_line_feeds(texts: list[str]) -> None:
    content = "".join(text + "\n" for text in texts).encode()
    lines = list(iterate_lines(io.BytesIO(content)))
    assert len(lines) == content.count(b"\n")
    for line, text in zip(lines, texts, strict=True):
        assert line.fault is not None or line.text == text.removesuffix("\r")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\xef\xbb\xbfone\ntwo", ["one", "two"]),
        ("one\ufefftwo\n".encode(), ["one\ufefftwo"]),
        (
            "one\u2028two\x0cthree\x85four\x0bfive\x1csix\rseven\n".encode(),
            ["one\u2028two\x0cthree\x85four\x0bfive\x1csix\rseven"],
        ),
    ],
)
def test_what_ends_a_line(content: bytes, texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(content)
    assert read_lines(tmp_path / "texts.txt") == texts
    assert read_lines(io.BytesIO(content)) == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\n\ntwo\n", "line 2 is empty"),
        (b"one\n \t\r\n", "line 2 is empty"),
        (b"one\ncaf\xe9 secret\n", "line 2 is not UTF-8"),
        (b"one\0secret\n", "line 1 contains a NUL"),
        ("one\n".encode("utf-16"), "line 1 is UTF-16"),
    ],
)
def test_faulty_lines_are_named_and_not_quoted(content: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=f"standard input: {message}") as caught:
        read_lines(io.BytesIO(content))
    assert "secret" not in str(caught.value)


def test_other_lines_survive_a_faulty_one() -> None:
    lines = list(iterate_lines(io.BytesIO(b"one\n\nthree\n\xff\nfive\n")))
    assert [(line.number, line.text) for line in lines if line.fault is None] == [(1, "one"), (3, "three"), (5, "five")]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        read_lines(tmp_path / "nowhere.txt")
    with pytest.raises(StorageError, match="could not read"):
        read_lines(tmp_path)


class _Endless(io.RawIOBase):
    """So many bytes of one letter, made as they are read, and a last line."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._last = io.BytesIO(b"\nlast\n")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(self._left, len(buffer))
        self._left -= size
        if not size:
            return self._last.readinto(buffer)
        buffer[:size] = b"a" * size
        return size


def test_a_line_of_any_length_takes_no_more_memory_than_is_allowed() -> None:
    tracemalloc.start()
    try:
        lines = list(iterate_lines(io.BufferedReader(_Endless(12 * LONGEST_LINE))))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(line.number, line.text) for line in lines] == [(1, ""), (2, "last")]
    assert "longer than 16,777,216 bytes" in str(lines[0].fault)
    assert peak < 5 * LONGEST_LINE


@pytest.mark.parametrize("size", [LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1])
def test_the_longest_line(size: int) -> None:
    for ending in (b"", b"\n", b"\nlast"):
        first, *rest = iterate_lines(io.BytesIO(b"a" * size + ending))
        assert (first.fault is None) == (size + ending.count(b"\n") <= LONGEST_LINE)
        assert [line.text for line in rest] == ["last"] * (ending == b"\nlast")
