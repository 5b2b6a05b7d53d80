"""An embedding space that clients align with: public sets, maps, registrations, undelivered results.

public/                        see `PublicSetStore`
maps/<identity>/<id>.json      card of a map; it makes the map
maps/<identity>/<id>.safetensors  the map
maps/<identity>/<id>.rows         the client's rows that it was learned from (generation tasks alone)
maps/<identity>/_heads/<id>/   heads that were fitted to it (see `FittedHeads`)
registrations/<identity>/<id>.safetensors  what a client registered about a map that it applies itself
registrations/<identity>/_heads/<id>/  heads that were fitted to that
undelivered/                   cross-covariances that their clients have not confirmed (see `UndeliveredStore`)

An identity's directory is named by the SHA-256 of its name.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, MappedChannel
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, SealignError, StorageError
from sealign.files import RowSpool, load_arrays, load_rows, save_arrays, save_rows
from sealign.protocol import MapCard
from sealign_server.store.files import (
    by_age,
    delete,
    named_digest,
    private_directory,
)
from sealign_server.store.fitted import FittedHeads, remove_fitted
from sealign_server.store.public_sets import PublicSetStore
from sealign_server.store.space_records import MapRecord
from sealign_server.store.undelivered import UndeliveredStore


class SpaceStore(PublicSetStore):
    """Public sets, maps and registrations of one space.

    Args:
        directory: of the space; made when something is written.
        encoder: the silo's own.
    """

    def __init__(self, directory: Path, encoder: EncoderCard) -> None:
        super().__init__(directory, encoder)
        self.undelivered = UndeliveredStore(directory / "undelivered")

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
            save_rows(_rows_of(path), rows)
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

    def map_rows(self, identity: str, learned: AffineMap, *, verify: bool = True) -> NDArray[np.float16] | None:
        """Return the client's rows that a map was learned from, mapped into memory; None if they were not kept.

        Args:
            identity: whose map it is.
            learned: the map.
            verify: compare them with their digest, which reads the whole file.

        Raises:
            StorageError: the file is damaged.
        """
        path = _rows_of(self._map(identity, learned.id))
        if not path.exists():
            return None
        return load_rows(path, len(learned.weight), "Delete it, then let the client align again.", verify=verify)

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
            return MappedChannel.of_arrays(arrays)
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

    def _map(self, identity: str, map_id: str) -> Path:
        return self._directory / "maps" / named_digest(identity) / map_id

    def _registration(self, identity: str, name: str) -> Path:
        return self._directory / "registrations" / named_digest(identity) / f"{name}.safetensors"


def _rows_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.rows")
