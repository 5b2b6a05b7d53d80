"""Links between documents lead to files and headings that exist. `mkdocs build --strict` checks the site likewise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.documents import REPOSITORY, documents

_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)")
_CODE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
# Pages that the site makes from other files of the repository: deploy/docs/hooks.py.
_MADE = {
    "deploy/docs/pages/security.md": "SECURITY.md",
    "deploy/docs/pages/contributing.md": "CONTRIBUTING.md",
    "deploy/docs/pages/reference/changelog.md": "CHANGELOG.md",
    "deploy/docs/pages/reference/protocol.md": "proto/PROTOCOL.md",
    "deploy/docs/pages/results.md": "tests/benchmarks/RESULTS.md",
}


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", document.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        name = str(target.relative_to(REPOSITORY))
        target = REPOSITORY / _MADE.get(name, name)
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target), f"{link}: no such heading"


def _anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", _CODE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
