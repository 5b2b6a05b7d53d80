"""The documents of the repository: their paths, and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = REPOSITORY / "deploy" / "docs" / "pages"
_BLOCK = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block of a document."""

    document: Path
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.document.relative_to(REPOSITORY)}: {self.text[:60]!r}"


def documents() -> list[Path]:
    """Return every Markdown document that people read."""
    of_the_root = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "proto").glob("*.md")]
    return sorted([*of_the_root, *(REPOSITORY / "tests" / "benchmarks").glob("*.md"), *PAGES.rglob("*.md")])


def code_blocks(document: Path) -> list[CodeBlock]:
    """Return the fenced blocks of a document, in order."""
    found = []
    for indent, language, text in _BLOCK.findall(document.read_text(encoding="utf-8")):
        found.append(CodeBlock(document, language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE)))
    return found


def commands(block: CodeBlock) -> list[str]:
    """Return the shell commands of a block, continued lines joined; of a console block, the lines after ``$``."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    lines = joined.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
