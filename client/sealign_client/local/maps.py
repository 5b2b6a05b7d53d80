"""The maps that a client uses, pinned by content: those that it applies itself, and ids of those that silos apply.

A pin says which map an encoder's rows take to a space of a silo. What another client makes the silo learn, or a silo
serves in place of that map, changes nothing: the client asks for the map that it pinned and refuses another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from sealign.alignment import AffineMap
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.files import write_atomically
from sealign.protocol import MapCard, Placement
from sealign_client.local.directory import private
from sealign_client.local.unfinished import UnfinishedAlignment

_FORMAT = "sealign.pin/1"


@dataclass(frozen=True)
class Lane:
    """From one encoder of the client to one space of a silo.

    Attributes:
        silo: the silo's name.
        space: the space's name.
        target: fingerprint of the silo's encoder.
        encoder: fingerprint of the client's encoder.
    """

    silo: str
    space: str
    target: str
    encoder: str

    def key(self, *more: str) -> str:
        """Return a name for files of this lane."""
        parts = "\0".join((self.silo, self.space, self.target, self.encoder, *more))
        return sha256(parts.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Pin:
    """The map of a lane.

    Attributes:
        placement: where the map is applied.
        card: the map and its quality.
        registration: what the silo calls its registration; None if there is none.
        registers: whether the map may be registered.
    """

    lane: Lane
    placement: Placement
    card: MapCard
    registration: str | None = None
    registers: bool = True


class ClientMaps:
    """Pins and maps in a directory.

    Args:
        directory: holds one JSON file for each pin, and one safetensors file for each map that the client applies.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def pin(self, pin: Pin, learned: AffineMap | None = None) -> None:
        """Keep a pin, and the map itself if the client applies it; an earlier pin of the lane is replaced only now.

        Raises:
            StorageError: a file could not be written; the earlier pin stays.
        """
        private(self.directory)
        before = self.pinned(pin.lane, pin.placement)
        if learned is not None:
            learned.save(self._map_path(learned.id))
        content = {"format": _FORMAT, **asdict(pin), "placement": pin.placement.value}
        write_atomically(self._pin_path(pin.lane, pin.placement), json.dumps(content, indent=1).encode(), mode=0o600)
        if before is not None and before.card.id != pin.card.id:
            self._drop_map(before)

    def state(self) -> int:
        """Return a number that changes when another program pins or deletes a map."""
        try:
            return self.directory.stat().st_mtime_ns
        except OSError:
            return 0

    def pinned(self, lane: Lane, placement: Placement) -> Pin | None:
        """Return the pin of a lane; None if there is none.

        Raises:
            StorageError: its file is damaged.
        """
        path = self._pin_path(lane, placement)
        return _read(path) if path.exists() else None

    def load(self, pin: Pin) -> AffineMap:
        """Return the map of a pin, which the client applies.

        Raises:
            StorageError, InvalidInputError: its file is missing, damaged, or holds another map.
        """
        path = self._map_path(pin.card.id)
        learned = AffineMap.load(path)
        found = (learned.id, learned.source_fingerprint, learned.target_fingerprint)
        if found != (pin.card.id, pin.lane.encoder, pin.lane.target):
            raise InvalidInputError(
                f"The file {path} holds another map than the one that was learned. Delete it and align again."
            )
        return learned

    def pins(self) -> Iterator[Pin]:
        """Yield every pin, the newest first.

        Raises:
            StorageError: a file is damaged.
        """
        found = map(_read, self.directory.glob("*.json")) if self.directory.is_dir() else iter(())
        yield from sorted(found, key=lambda pin: pin.card.created, reverse=True)

    def find(self, name: str) -> Pin:
        """Return the pin whose map id begins with ``name``.

        Raises:
            NotFoundError: there is none, or more than one.
        """
        found = [pin for pin in self.pins() if name and pin.card.id.startswith(name)]
        if len(found) != 1:
            raise NotFoundError(f"{len(found)} maps have an id that begins with {name!r}. See: sealign maps list")
        return found[0]

    def delete(self, pin: Pin) -> None:
        """Delete a pin, and its map if the client applies it."""
        self._pin_path(pin.lane, pin.placement).unlink(missing_ok=True)
        self._drop_map(pin)

    def unfinished(self, lane: Lane, public_set: str, passphrase: str | None) -> UnfinishedAlignment:
        """Return the alignment under way over a public set, in files of its own; there may be none yet.

        Raises:
            StorageError: its files are damaged.
        """
        return UnfinishedAlignment(self.directory / f"{lane.key(public_set)}.alignment", passphrase)

    def _drop_map(self, pin: Pin) -> None:
        if pin.placement is Placement.CLIENT and all(other.card.id != pin.card.id for other in self.pins()):
            self._map_path(pin.card.id).unlink(missing_ok=True)

    def _pin_path(self, lane: Lane, placement: Placement) -> Path:
        return self.directory / f"{lane.key(placement.value)}.json"

    def _map_path(self, name: str) -> Path:
        return self.directory / f"{name}.safetensors"


def _read(path: Path) -> Pin:
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != _FORMAT:
            raise ValueError("another format")  # noqa: TRY301
        return Pin(
            Lane(**content["lane"]),
            Placement(content["placement"]),
            MapCard(**content["card"]),
            content["registration"],
            content["registers"],
        )
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"The file {path}, which names a map, is damaged. Delete it and align again.") from error
