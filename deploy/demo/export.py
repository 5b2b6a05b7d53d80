"""Write texts where ``deploy/compose.yaml`` reads them: ``python -m deploy.demo.export DIRECTORY``.

``public/texts.txt`` is for both sides; ``silo/r8.tsv`` is what the silo trains on and ``app/r8.tsv``
what the application asks about, with the columns ``label`` and ``text``.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from deploy.demo.data import LabelledText, public_texts, reuters_r8
from sealign.files import write_atomically


def _write(path: Path, lines: list[str]) -> None:
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def _table(rows: list[LabelledText], count: int) -> list[str]:
    chosen = random.Random(0).sample(rows, min(count, len(rows)))  # noqa: S311 - samples texts, makes no secret
    return ["label\ttext", *(f"{row.label}\t{row.text}" for row in chosen)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo's texts for the containers.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--public", type=int, default=3000, help="public texts")
    parser.add_argument("--train", type=int, default=5485, help="labelled texts of the silo")
    parser.add_argument("--test", type=int, default=500, help="texts of the application")
    options = parser.parse_args()
    _write(options.directory / "public" / "texts.txt", public_texts(options.public))
    _write(options.directory / "silo" / "r8.tsv", _table(reuters_r8("train"), options.train))
    _write(options.directory / "app" / "r8.tsv", _table(reuters_r8("test"), options.test))


if __name__ == "__main__":
    main()
