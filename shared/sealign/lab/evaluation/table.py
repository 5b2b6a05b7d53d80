"""A table of a report, the same in Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A caption, headings, and lines of as many cells; the first ``texts`` columns are texts, the rest figures.

    Long texts are broken where ``long`` says that there are some.
    """

    caption: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    texts: int = 1
    long: bool = False
