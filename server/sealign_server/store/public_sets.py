"""Public sets of an embedding space: the silo's rows of public texts, and the texts.

public/<digest>.json           card of a public set; it makes the set
public/<digest>.safetensors    the silo's rows, one for each text
public/<digest>.states         of a generation task instead: float16 rows, one for each token that counts
public/<digest>.texts          its texts, so that shared examples can join them
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders import EncoderCard
from sealign.errors import StorageError
from sealign.files import load_arrays, load_rows, resumed_rows, save_arrays
from sealign.protocol import PublicSetCard, find_public_set
from sealign_server.store.files import delete, private_directory, read_json, write_private
from sealign_server.store.space_records import PublicRows


class PublicSetStore:
    """The public sets of one space.

    Args:
        directory: of the space; made when something is written.
        encoder: the silo's own.
    """

    def __init__(self, directory: Path, encoder: EncoderCard) -> None:
        self._directory = directory
        self.encoder = encoder

    def public_sets(self) -> list[PublicSetCard]:
        """Return the cards of the public sets, sorted by digest.

        Raises:
            StorageError: one is damaged.
        """
        cards = []
        for path in sorted((self._directory / "public").glob("*.json")):
            content = read_json(path)
            try:
                cards.append(PublicSetCard(path.stem, content["rows"], content["name"], content["base"]))  # type: ignore[index]
            except (KeyError, TypeError) as error:
                raise StorageError(f"{path} is damaged; embed the set again") from error
        return cards

    def public_set(self, digest: str) -> PublicSetCard:
        """Return the card of a public set.

        Raises:
            NotFoundError: the space does not hold it.
        """
        return find_public_set(self.public_sets(), digest)

    def has_public_set(self, digest: str) -> bool:
        """Return whether the space holds a public set; one look at a file's name."""
        return os.path.exists(f"{self._directory}/public/{digest}.json")  # noqa: PTH110 - per query

    def save_public_set(self, public: PublicRows, texts: PublicSet | None = None) -> None:
        """Keep the silo's rows of a public set; the card last, since its presence makes the set.

        Args:
            public: card and rows.
            texts: without them, no shared examples can join the set.
        """
        path = self._public(public.card.digest).with_suffix(".safetensors")
        private_directory(path.parent)
        save_arrays(path, {"rows": public.rows}, {"digest": public.card.digest})
        self._write_public_card(public.card, texts)

    def save_public_states(
        self,
        card: PublicSetCard,
        texts: PublicSet,
        counts: Sequence[int],
        read: Callable[[int], Iterable[NDArray[np.float32]]],
    ) -> None:
        """Keep token states of a public set, those that an interrupted run has not kept; the card last.

        Args:
            card: of the set.
            texts: of the set.
            counts: rows of each text.
            read: given how many texts are done, reads those that follow.

        Raises:
            StorageError: a file could not be written; what was read stays for the next run.
        """
        path = self._public(card.digest).with_suffix(".states")
        private_directory(path.parent)
        resumed_rows(path, counts, self.encoder.dimension, read)
        self._write_public_card(card, texts)

    def _write_public_card(self, card: PublicSetCard, texts: PublicSet | None) -> None:
        path = self._public(card.digest)
        if texts is not None:
            content = json.dumps(texts.texts, ensure_ascii=False).encode("utf-8", "surrogatepass")
            write_private(path.with_suffix(".texts"), content)
        content = json.dumps({"rows": card.rows, "name": card.name, "base": card.base}).encode()
        write_private(path.with_suffix(".json"), content)

    def load_public_set(self, digest: str) -> PublicRows:
        """Return the silo's rows of a public set; token states are mapped into memory.

        Raises:
            NotFoundError: the space does not hold it.
            StorageError: its file is damaged.
        """
        card = self.public_set(digest)
        states = self._public(card.digest).with_suffix(".states")
        rows: NDArray[np.float32] | NDArray[np.float16]
        if states.exists():
            rows = load_rows(states, self.encoder.dimension, "Delete it, then run sealign-server generation add again.")
        else:
            rows = load_arrays(states.with_suffix(".safetensors"))[0].get("rows", np.empty(0, np.float32))
        if len(rows) != card.rows:
            raise StorageError(f"the rows of public set {card.digest[:12]} are damaged; embed the set again")
        return PublicRows(card, rows)

    def load_public_texts(self, digest: str) -> PublicSet:
        """Return the texts of a public set.

        Raises:
            NotFoundError: the space does not hold it.
            StorageError: its texts were not kept, or are damaged.
        """
        path = self._public(self.public_set(digest).digest).with_suffix(".texts")
        content = read_json(path)
        try:
            texts = PublicSet(tuple(content))  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged; embed the set again (sealign-server init)") from error
        if texts.digest != digest:
            raise StorageError(f"{path} holds other texts; embed the set again (sealign-server init)")
        return texts

    def remove_public_set(self, digest: str) -> None:
        """Delete a public set; the card first, so that it stops being offered.

        Raises:
            NotFoundError: the space does not hold it.
        """
        path = self._public(self.public_set(digest).digest)
        for suffix in (".json", ".texts", ".safetensors", ".states"):
            delete(path.with_suffix(suffix))

    def _public(self, digest: str) -> Path:
        return self._directory / "public" / digest
