"""An embedding space that clients align with: public sets, maps, registrations, undelivered results.

public/<digest>.json           card of a public set; it makes the set
public/<digest>.safetensors    the silo's rows, one for each text
public/<digest>.states         of a generation task instead: float16 rows, one for each token that counts
public/<digest>.texts          its texts, so that shared examples can join them
maps/<identity>/<id>.json      card of a map; it makes the map
maps/<identity>/<id>.safetensors  the map
maps/<identity>/<id>.rows.safetensors  the client's rows that it was learned from (generation tasks alone)
maps/<identity>/_heads/<id>/   heads that were fitted to it (see `FittedHeads`)
registrations/<identity>/<id>.safetensors  what a client registered about a map that it applies itself
registrations/<identity>/_heads/<id>/  heads that were fitted to that
undelivered/                   cross-covariances that their clients have not confirmed (see `UndeliveredStore`)

An identity's directory is named by the SHA-256 of its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, MappedChannel, PublicSet
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, SealignError, StorageError
from sealign.files import ArrayWriter, RowSpool, load_arrays, map_arrays, mapped_rows, resumed_rows, save_arrays
from sealign.protocol import MapCard, PublicSetCard, find_public_set
from sealign_server.store.files import (
    by_age,
    delete,
    named_digest,
    private_directory,
    read_json,
    write_private,
)
from sealign_server.store.fitted import FittedHeads, remove_fitted
from sealign_server.store.space_records import MapRecord, PublicRows
from sealign_server.store.undelivered import UndeliveredStore


class SpaceStore:
    """Public sets, maps and registrations of one space.

    Args:
        directory: of the space; made when something is written.
        encoder: the silo's own.
    """

    def __init__(self, directory: Path, encoder: EncoderCard) -> None:
        self._directory = directory
        self.encoder = encoder
        self.undelivered = UndeliveredStore(directory / "undelivered")

    # Public sets

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
        if states.exists():
            return PublicRows(card, mapped_rows(states, (card.rows, self.encoder.dimension)))
        arrays, _ = load_arrays(self._public(card.digest).with_suffix(".safetensors"))
        if "rows" not in arrays or len(arrays["rows"]) != card.rows:
            raise StorageError(f"the rows of public set {card.digest[:12]} are damaged; embed the set again")
        return PublicRows(card, arrays["rows"])

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

    # Maps

    def map_records(self, encoder: str | None = None, *identities: str) -> list[MapRecord]:
        """Return the maps of these identities, or of all, and of an encoder or of all; the newest first."""
        owners = [named_digest(identity) for identity in identities] or ["*"]
        found = [path for owner in owners for path in (self._directory / "maps").glob(f"{owner}/*.json")]
        records = []
        for path in reversed(by_age(found)):
            with suppress(StorageError):  # deleted meanwhile, or damaged: it costs nobody but its owner
                records.append(MapRecord.read(path))
        return [record for record in records if encoder in (None, record.card.encoder)]

    def has_map(self, identity: str, map_id: str) -> bool:
        """Return whether an identity has a map; one look at a file's name."""
        return os.path.exists(f"{self._directory}/maps/{named_digest(identity)}/{map_id}.json")  # noqa: PTH110

    def save_map(
        self, identity: str, learned: AffineMap, row_norm: float, rows: NDArray[np.float16] | None
    ) -> MapRecord:
        """Keep a map for its identity; the card last.

        Args:
            identity: whose it is.
            learned: the map.
            row_norm: largest norm of a row that it was learned from.
            rows: the client's rows, (n, s), where maps are to be refined.

        Raises:
            StorageError: a file could not be written; no map has changed.
        """
        path = self._map(identity, learned.id)
        private_directory(path.parent)
        if rows is not None:
            with ArrayWriter(_rows_of(path), {"rows": (rows.shape, rows.dtype)}, {}) as writer:
                writer.append("rows", rows)
        learned.save(path.with_suffix(".safetensors"))
        record = MapRecord(identity=identity, row_norm=row_norm, card=MapCard.of(learned))
        record.write(path.with_suffix(".json"))
        return record

    def row_spool(self, width: int) -> RowSpool:
        """Return a place on disk for rows that a client sends, until they belong to a map.

        Raises:
            StorageError: there is none.
        """
        return RowSpool(private_directory(self._directory / "maps"), width)

    def load_map(self, identity: str, map_id: str) -> AffineMap:
        """Return a map.

        Raises:
            StorageError: it is missing, damaged, or not what its name says.
        """
        path = self._map(identity, map_id).with_suffix(".safetensors")
        try:
            learned = AffineMap.load(path)
        except SealignError as error:
            raise StorageError(f"map {path} cannot be used: {error}") from error
        if learned.id != map_id or learned.target_fingerprint != self.encoder.fingerprint:
            raise StorageError(f"map {path} is not what its name says, or leads to another encoder; delete it")
        return learned

    def map_record(self, identity: str, map_id: str) -> MapRecord:
        """Return a map's card.

        Raises:
            StorageError: it is missing or damaged.
        """
        return MapRecord.read(self._map(identity, map_id).with_suffix(".json"))

    def map_rows(self, identity: str, map_id: str) -> NDArray[np.float16] | None:
        """Return the client's rows that a map was learned from, mapped into memory; None if they were not kept.

        Raises:
            StorageError: the file is damaged.
        """
        path = _rows_of(self._map(identity, map_id))
        if not path.exists():
            return None
        arrays, _ = map_arrays(path)
        if "rows" not in arrays:
            raise StorageError(f"{path} is damaged; align again")
        rows: NDArray[np.float16] = arrays["rows"]
        return rows

    def remove_map(self, identity: str, map_id: str) -> None:
        """Delete a map; the card first, so that it stops being served."""
        path = self._map(identity, map_id)
        delete(path.with_suffix(".json"))
        delete(path.with_suffix(".safetensors"))
        delete(_rows_of(path))
        self.fitted_to_map(identity, map_id).clear()

    def evict_maps(self, identity: str, most: int) -> None:
        """Delete an identity's oldest maps beyond ``most``."""
        paths = by_age(list((self._directory / "maps" / named_digest(identity)).glob("*.json")))
        for path in paths[:-most]:
            self.remove_map(identity, path.stem)

    # What clients register about maps that they apply

    def save_registration(self, identity: str, name: str, channel: MappedChannel, most: int) -> None:
        """Keep what an identity registered, under a name; beyond ``most``, its oldest are evicted.

        Raises:
            StorageError: the file could not be written.
        """
        path = self._registration(identity, name)
        private_directory(path.parent)
        save_arrays(path, {part: getattr(channel, part) for part in MappedChannel.ARRAYS}, {})
        for old in by_age(list(path.parent.glob("*.safetensors")))[:-most]:
            delete(old)
            FittedHeads(old).clear()

    def has_registration(self, identity: str, name: str) -> bool:
        """Return whether an identity has a registration."""
        return self._registration(identity, name).exists()

    def load_registration(self, identity: str, name: str) -> MappedChannel | None:
        """Return what an identity registered; None if it is not held.

        Raises:
            StorageError: the file is damaged.
        """
        path = self._registration(identity, name)
        if not path.exists():
            return None
        arrays, _ = load_arrays(path)
        try:
            return MappedChannel(*(arrays[part] for part in MappedChannel.ARRAYS))
        except (KeyError, InvalidInputError) as error:
            raise StorageError(f"{path} is damaged; delete it") from error

    def fitted_to_map(self, identity: str, map_id: str) -> FittedHeads:
        """Return the heads that were fitted to a map."""
        return FittedHeads(self._map(identity, map_id).with_suffix(".json"))

    def fitted_to_registration(self, identity: str, name: str) -> FittedHeads:
        """Return the heads that were fitted to what an identity registered."""
        return FittedHeads(self._registration(identity, name))

    def remove_fitted(self, task: str) -> None:
        """Delete a task's heads of all maps and registrations."""
        for kind in ("maps", "registrations"):
            remove_fitted(self._directory / kind, task)

    def _public(self, digest: str) -> Path:
        return self._directory / "public" / digest

    def _map(self, identity: str, map_id: str) -> Path:
        return self._directory / "maps" / named_digest(identity) / map_id

    def _registration(self, identity: str, name: str) -> Path:
        return self._directory / "registrations" / named_digest(identity) / f"{name}.safetensors"


def _rows_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.rows.safetensors")
