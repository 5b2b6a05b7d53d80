"""The maps that a client has learned under encryption and applies itself."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from sealign.alignment import AffineMap
from sealign.errors import InvalidInputError
from sealign.protocol import SiloCard
from sealign_client.unfinished_alignment import UnfinishedAlignment


class ClientMaps:
    """Maps by the client's encoder, the silo (its name and encoder) and the public set.

    Args:
        directory: where to keep them; None for maps that die with the process.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._maps: dict[str, AffineMap] = {}

    def keep(self, silo: SiloCard, learned: AffineMap) -> None:
        """Keep a map; an earlier one for the same encoder, silo and public set is replaced only now.

        Raises:
            StorageError: the file could not be written; the earlier one stays.
        """
        name = _name(silo, learned.source_fingerprint, learned.public_set)
        if self._directory is not None:
            learned.save(self._directory / name)
        self._maps[name] = learned

    def unfinished(
        self, silo: SiloCard, encoder: str, public_set: str, passphrase: str | None
    ) -> UnfinishedAlignment | None:
        """The alignment under way that will make a map, in files beside it; None where maps have no directory.

        Raises:
            StorageError: its files are damaged.
        """
        if self._directory is None:
            return None
        name = Path(_name(silo, encoder, public_set)).with_suffix(".alignment")
        return UnfinishedAlignment(self._directory / name, passphrase)

    def find(self, silo: SiloCard, encoder: str) -> AffineMap | None:
        """The newest map from an encoder, named by fingerprint, into a silo's space; None if there is none.

        Raises:
            StorageError, InvalidInputError: a file is damaged, or holds a map between other encoders.
        """
        found = (self._find(silo, encoder, public.digest) for public in silo.public_sets)
        return max((learned for learned in found if learned is not None), key=lambda m: m.created, default=None)

    def _find(self, silo: SiloCard, encoder: str, public_set: str) -> AffineMap | None:
        name = _name(silo, encoder, public_set)
        if self._directory is None or not (self._directory / name).exists():
            return self._maps.get(name)
        learned = AffineMap.load(self._directory / name)
        found = (learned.source_fingerprint, learned.target_fingerprint, learned.public_set)
        if found != (encoder, silo.encoder, public_set) or learned.weight.shape[1] != silo.dimension:
            raise InvalidInputError(
                f"the map {self._directory / name} was learned between other encoders or over another public set; "
                "delete the file and align again"
            )
        return learned


def _name(silo: SiloCard, encoder: str, public_set: str) -> str:
    key = "\0".join((encoder, silo.name, silo.encoder, public_set))
    return f"{sha256(key.encode()).hexdigest()[:32]}.safetensors"
