"""What may be written to a terminal: text of the other side with its control characters made visible, whole tables."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

from sealign.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import Console

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # part of Persian words and of emoji, and unable to move or hide other text


@cache
def stderr() -> Console:
    """Return standard error as rich writes to it."""
    from rich.console import Console

    return Console(stderr=True)


def is_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def visible(text: object) -> str:
    """Return a text on one line with control characters, escape sequences and direction overrides as visible escapes.

    Use it for everything of the other side that reaches a terminal: labels, names, descriptions, error messages.
    """
    return "".join(_escaped(character) for character in str(text))


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table on standard output; whole lines if it goes to a file or a pipe, folded cells on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(title)) if title else None, title_justify="left")
    for column in columns:
        table.add_column(Text(visible(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        wide = console.options.update(max_width=1 << 16)
        console = Console(width=console.measure(table, options=wide).maximum)
    console.print(table)


def standard_input() -> BinaryIO:
    """Return standard input as bytes.

    Raises:
        InvalidInputError: the program was started with standard input closed.
    """
    if sys.stdin is None:
        raise InvalidInputError("Standard input is closed. Give a file, or send the texts through a pipe.")
    try:
        # A reader of its own: where a thread still waits for input, the interpreter could not close its own at the end.
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError:  # replaced by a program that gives the input itself
        return sys.stdin.buffer
