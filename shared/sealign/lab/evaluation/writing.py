"""A report's files."""

from __future__ import annotations

from pathlib import Path

from sealign.files import PUBLIC, write_atomically
from sealign.lab.evaluation.html import html
from sealign.lab.evaluation.markdown import markdown
from sealign.lab.evaluation.results import Report, save


def write_report(report: Report, directory: Path) -> list[Path]:
    """Write report.html, report.md and report.json; returns their paths.

    Raises:
        StorageError: a file could not be written; an earlier one is intact.
    """
    paths = [directory / f"report.{kind}" for kind in ("html", "md", "json")]
    write_atomically(paths[0], html(report).encode(), mode=PUBLIC)
    write_atomically(paths[1], markdown(report).encode(), mode=PUBLIC)
    save(report, paths[2])
    return paths
