"""Hooks of the site: pages that the repository keeps elsewhere, and names in docstrings."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[2]
INCLUDED = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "reference/changelog.md",
    "proto/PROTOCOL.md": "reference/protocol.md",
    "tests/benchmarks/RESULTS.md": "results.md",
}
"""Files of the repository, and the pages that show them."""
_PAGES = "deploy/docs/pages/"
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")
_ROLE = re.compile(r":(?:class|meth|func|mod|attr):(?=<code>)")


def on_files(files: Files, config: Any) -> Files:
    """Add the included pages."""
    for source, page in INCLUDED.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_relinked(text, source, page)))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Show the names that docstrings refer to, without the roles before them."""
    return _ROLE.sub("", html)


def _relinked(text: str, source: str, page: str) -> str:
    """Return the text of ``source`` with links that hold on ``page``; a file that is no page is named, not linked."""

    def link(match: re.Match[str]) -> str:
        title, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        shown = INCLUDED.get(path) or (path.removeprefix(_PAGES) if path.startswith(_PAGES) else None)
        if shown is None:
            return title if path in title else f"{title} (`{path}`)"
        return f"[{title}]({posixpath.relpath(shown, posixpath.dirname(page) or '.')}{anchor})"

    return _LINK.sub(link, text)
