"""Write the demo's texts: ``python -m deploy.demo.export DIRECTORY``.

``public/texts.txt`` is for both sides; ``silo/r8.tsv`` is what the silo trains on and ``app/r8.tsv`` what the
application asks about, with the columns ``label`` and ``text``.

With ``--containers`` it writes what the images of the demos hold: few and short texts, since they are embedded while
somebody watches; and the client's model. ``public.txt`` is for both sides, ``topics.tsv`` and ``sentiment.tsv`` for
silos, ``texts.tsv`` and ``reviews.tsv`` for applications.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from shutil import copytree

from deploy.demo.data import LabelledText, all_minilm, movie_reviews, public_texts, reuters_r8
from sealign.files import write_atomically

_WORDS, _PUBLIC_WORDS = 40, 24


def _write(path: Path, lines: Iterable[str]) -> None:
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode(), mode=0o644)


def _table(rows: list[LabelledText]) -> list[str]:
    return ["label\ttext", *(f"{row.label}\t{row.text}" for row in rows)]


def _sample(rows: list[LabelledText], count: int) -> list[LabelledText]:
    return random.Random(0).sample(rows, min(count, len(rows)))  # noqa: S311 - samples texts, makes no secret


def _balanced(rows: list[LabelledText], per_label: int) -> list[LabelledText]:
    """Return the openings of so many texts of each label, in a random order."""
    labels = sorted({row.label for row in rows})
    chosen = [row for label in labels for row in islice((row for row in rows if row.label == label), per_label)]
    return _sample([LabelledText(_opening(row.text), row.label) for row in chosen], len(chosen))


def _opening(text: str) -> str:
    return " ".join(text.split()[:_WORDS])


def export_containers(directory: Path) -> None:
    """Write what the images of the demos are made from, all in one folder."""
    _write(directory / "public.txt", (" ".join(text.split()[:_PUBLIC_WORDS]) for text in public_texts(200)))
    _write(directory / "topics.tsv", _table(_balanced(reuters_r8("train"), 80)))
    _write(directory / "texts.tsv", _table(_balanced(reuters_r8("test"), 3)))
    reviews = movie_reviews()
    _write(directory / "sentiment.tsv", _table(_balanced(reviews[::2], 200)))
    _write(directory / "reviews.tsv", _table(_balanced(reviews[1::2], 6)))
    copytree(all_minilm(), directory / "minilm")


def main() -> None:
    """Write what the options ask for."""
    parser = argparse.ArgumentParser(description="Write the demo's texts.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--containers", action="store_true", help="what the images of the demos hold")
    parser.add_argument("--public", type=int, default=0, help="public texts; by default none")
    parser.add_argument("--train", type=int, default=5485, help="labelled texts of the silo")
    parser.add_argument("--test", type=int, default=500, help="texts of the application")
    options = parser.parse_args()
    if options.containers:
        export_containers(options.directory)
        return
    if options.public:
        _write(options.directory / "public" / "texts.txt", public_texts(options.public))
    _write(options.directory / "silo" / "r8.tsv", _table(_sample(reuters_r8("train"), options.train)))
    _write(options.directory / "app" / "r8.tsv", _table(_sample(reuters_r8("test"), options.test)))


if __name__ == "__main__":
    main()
