"""The public texts over which both sides align, named by what they say and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sealign.errors import InvalidInputError, NotFoundError, StorageError


@dataclass(frozen=True)
class PublicSet:
    """Distinct, non-empty texts in a fixed order: row i of both sides' embeddings is text i.

    Duplicates are refused because a text in two folds would not be held out from its own fit.

    Raises:
        InvalidInputError: fewer than two texts, or one that is empty or repeated; texts are counted
            as the lines of a file, from 1.
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        first: dict[str, int] = {}
        for number, text in enumerate(self.texts, 1):
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
    def from_file(cls, path: str | Path) -> PublicSet:
        """Read one UTF-8 text a line; the line ending (LF or CRLF) is not part of the text.

        Raises:
            NotFoundError: there is no such file.
            StorageError: the file cannot be read.
            InvalidInputError: a bad line, named by its number.
        """
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no public set at {path}; check the path") from error
        except OSError as error:
            raise StorageError(f"could not read {path}: {error.strerror}") from error
        try:
            lines = content.decode("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            number = content.count(b"\n", 0, error.start) + 1
            raise InvalidInputError(f"{path}: line {number} is not UTF-8; convert the file to UTF-8") from None
        try:
            return cls(tuple(line.removesuffix("\r") for line in lines))
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error}") from None

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
