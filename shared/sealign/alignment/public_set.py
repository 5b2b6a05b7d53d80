"""The public texts over which both sides align, named by what they say and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

from sealign.errors import InvalidInputError
from sealign.lines import read_lines
from sealign.shipped import GENERAL, general_texts


@dataclass(frozen=True)
class PublicSet:
    """Distinct, non-empty texts in a fixed order: row i of both sides' embeddings is text i.

    Duplicates are refused because a text in two folds would not be held out from its own fit.

    Args:
        texts: a tuple, or any other iterable of texts, of which one is made.

    Raises:
        InvalidInputError: something else than texts; fewer than two of them, or one that is empty or repeated.
            Texts are counted as the lines of a file, from 1.
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.texts, (str, bytes, PathLike, Mapping, Set)) or not isinstance(self.texts, Iterable):
            raise InvalidInputError(
                f"A value of type {type(self.texts).__name__} holds no texts in an order. Give a list of texts, or "
                "read a file: PublicSet.from_file(path)."
            )
        object.__setattr__(self, "texts", tuple(self.texts))
        first: dict[str, int] = {}
        for number, text in enumerate(self.texts, 1):
            if not isinstance(text, str):
                raise InvalidInputError(f"line {number} is of type {type(text).__name__}, not a text; decode it")
            if not text.strip():
                raise InvalidInputError(f"line {number} is empty; remove it")
            if first.setdefault(text, number) != number:
                raise InvalidInputError(
                    f"line {number} repeats line {first[text]}; keep one of the two "
                    "(awk '!seen[$0]++' keeps the first of each)"
                )
        if len(self.texts) < 2:
            raise InvalidInputError(f"there is no line {len(self.texts) + 1}: a public set needs at least two texts")

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> PublicSet:
        """Read one UTF-8 text per line; see :mod:`sealign.lines`.

        Raises:
            NotFoundError: there is no such file.
            StorageError: the file cannot be read.
            InvalidInputError: a bad line, named by its number; or something else than a path.
        """
        if not isinstance(path, (str, PathLike)):
            raise InvalidInputError(f"A value of type {type(path).__name__} is no path. Give the path of a file.")
        lines = read_lines(Path(path))
        try:
            return cls(tuple(lines))
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error}") from None

    @classmethod
    def named(cls, given: str | PathLike[str]) -> PublicSet:
        """Return the set that a command is given: ``general``, ``general:ROWS``, or the path of a file.

        ``general`` is the set that ships with Sealign, and ``general:4000`` its first 4,000 texts, which are a sample
        of all. The name counts whatever files there are, so that the same command means the same everywhere. A file of
        that name is ``./general``, or a :class:`pathlib.Path`.

        Raises:
            NotFoundError, StorageError, InvalidInputError: as :meth:`from_file`; or there are not so many texts.
        """
        name, colon, rows = str(given).partition(":")
        if name != GENERAL or isinstance(given, PathLike):
            return cls.from_file(given)
        texts = general_texts()
        rows = rows if colon else str(len(texts))
        if not (rows.isascii() and rows.isdigit() and 2 <= int(rows) <= len(texts)):
            raise InvalidInputError(
                f"{given} names no part of the general public set. Give {GENERAL}, or {GENERAL}:ROWS with 2 to "
                f"{len(texts)} rows."
            )
        return cls(texts[: int(rows)])

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, over the number of texts and each text's length and bytes.

        Counts and lengths are 64-bit little-endian, so no two different sets share an encoding.
        """
        sha256 = hashlib.sha256(len(self.texts).to_bytes(8, "little"))
        for text in self.texts:
            encoded = text.encode("utf-8", "surrogatepass")
            sha256.update(len(encoded).to_bytes(8, "little"))
            sha256.update(encoded)
        return sha256.hexdigest()

    def joined(self, texts: Iterable[str]) -> PublicSet:
        """This set followed by those of the texts that are not in it, in their order."""
        return PublicSet(tuple(dict.fromkeys((*self.texts, *texts))))

    def __len__(self) -> int:
        return len(self.texts)


def public_sets(given: Sequence[str]) -> dict[str, PublicSet]:
    """Return public sets by name: a file's name without what follows the last dot, or ``general-ROWS``.

    Args:
        given: as :meth:`PublicSet.named` takes them.

    Raises:
        InvalidInputError: two of one name.
        NotFoundError, StorageError, InvalidInputError: as :meth:`PublicSet.named`.
    """
    names: dict[str, str] = {}
    for one in given:
        name = one.replace(":", "-") if one.startswith(f"{GENERAL}:") else Path(one).stem
        if name in names:
            raise InvalidInputError(f"{names[name]} and {one} would both be called {name}; rename one, or give it once")
        names[name] = one
    return {name: PublicSet.named(one) for name, one in names.items()}
