"""Files of one text per line, read the same way everywhere.

Only LF and CRLF end a line. A form feed, U+0085, U+2028 or a lone carriage return is part of its line, so answers stand
against the lines that `wc -l` and pandas count. A byte order mark at the start of a file is not part of its first line.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sealign.errors import InvalidInputError, NotFoundError, StorageError

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

LONGEST_LINE = 1 << 24
"""Bytes of a line that are read into memory; a longer one is passed over."""


@dataclass(frozen=True)
class Line:
    """One line of a file.

    Attributes:
        number: counted from 1, as in the file.
        text: without the line ending; empty if the line is faulty.
        fault: what is wrong with the line and what to do; None for a line that can be used.
    """

    number: int
    text: str
    fault: str | None = None


def iterate_lines(stream: BinaryIO) -> Iterator[Line]:
    """Yield the lines of a binary stream in turn, faulty ones included; constant memory."""
    for number, raw in enumerate(_raw_lines(stream), 1):
        if len(raw) > LONGEST_LINE:
            yield Line(number, "", f"is longer than {LONGEST_LINE:,} bytes; split or shorten it")
            continue
        content = raw.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            if content.startswith(_UTF16):
                yield Line(number, "", "is UTF-16; convert the file to UTF-8")
                return
            content = content.removeprefix(_BOM)
        yield _line(number, content)


def _raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines with their LF, and of one that is too long one byte more than is allowed."""
    while raw := stream.readline(LONGEST_LINE + 1):
        rest = raw
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE + 1)
        yield raw


def _line(number: int, content: bytes) -> Line:
    if b"\0" in content:
        return Line(number, "", "contains a NUL character; remove it, or convert the file to UTF-8 if it is UTF-16")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return Line(number, "", "is not UTF-8; convert the file to UTF-8")
    if not text.strip():
        return Line(number, "", "is empty; remove it")
    return Line(number, text)


def checked_lines(stream: BinaryIO, name: str) -> list[str]:
    """Return the texts of a binary stream, one per line.

    Args:
        stream: of the file.
        name: of the file, for errors.

    Raises:
        InvalidInputError: a line is empty, not UTF-8, or contains a NUL character. The error names the line by its
            number, counted from 1, and does not quote it.
    """
    texts = []
    for line in iterate_lines(stream):
        if line.fault is not None:
            raise InvalidInputError(f"{name}: line {line.number} {line.fault}")
        texts.append(line.text)
    return texts


def read_lines(source: Path | BinaryIO, *, name: str | None = None) -> list[str]:
    """Return the texts of a UTF-8 file, one per line.

    Args:
        source: the file's path, or a binary stream such as ``sys.stdin.buffer``.
        name: what errors call it; by default the path, or "standard input".

    Raises:
        NotFoundError, StorageError: the file is missing or cannot be read.
        InvalidInputError: a line is empty, not UTF-8, or contains a NUL character; named by its number from 1.
    """
    name = name or (str(source) if isinstance(source, Path) else "standard input")
    try:
        if isinstance(source, Path):
            return checked_lines(io.BytesIO(source.read_bytes()), name)
        return checked_lines(source, name)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {name}; check the path") from error
    except OSError as error:
        raise StorageError(f"could not read {name}: {error.strerror or error}") from error
