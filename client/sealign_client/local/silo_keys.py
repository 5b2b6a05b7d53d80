"""The signing keys of silos, pinned at their first use as SSH pins the keys of hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from sealign.errors import NotFoundError, StorageError, UntrustedCardError
from sealign.files import write_atomically
from sealign.protocol.signing import KEY_BYTES, KeyChange, keys_after
from sealign_client.local.directory import private

_FORMAT, _SUFFIX = "sealign.silo-key/1", ".silokey"


@dataclass(frozen=True)
class SiloKey:
    """The signing key of a silo.

    Attributes:
        silo: its address, host:port, as the settings name it.
        key: 64 hexadecimal digits.
        pinned: when, ISO 8601, UTC.
    """

    silo: str
    key: str
    pinned: str


class SiloKeys:
    """Pinned keys in a directory, beside the maps.

    Args:
        directory: holds one file for each silo.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def pinned(self, silo: str) -> SiloKey | None:
        """Return the key of a silo; None if none is pinned.

        Raises:
            StorageError: its file is damaged.
        """
        path = self._path(silo)
        return _read(path) if path.exists() else None

    def pin(self, silo: str, key: bytes) -> None:
        """Use a key of a silo from now on, in place of an earlier one.

        Raises:
            StorageError: it could not be written.
        """
        private(self._directory)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        content = {"format": _FORMAT, **asdict(SiloKey(silo, key.hex(), now))}
        write_atomically(self._path(silo), json.dumps(content, indent=1).encode())

    def all(self) -> Iterator[SiloKey]:
        """Yield every pinned key, by address.

        Raises:
            StorageError: a file is damaged.
        """
        found = map(_read, self._directory.glob(f"*{_SUFFIX}")) if self._directory.is_dir() else iter(())
        yield from sorted(found, key=lambda pinned: pinned.silo)

    def delete(self, silo: str) -> None:
        """Delete the key of a silo: the next use pins the one that it then has.

        Raises:
            NotFoundError: none is pinned.
        """
        try:
            self._path(silo).unlink()
        except FileNotFoundError:
            raise NotFoundError(f"No key of a silo at {silo} is pinned. See: sealign silo-keys list") from None

    def _path(self, silo: str) -> Path:
        return self._directory / f"{sha256(silo.encode()).hexdigest()[:32]}{_SUFFIX}"


class SiloTrust:
    """Which signing key of one silo this client trusts: a configured one, or the one that was there at first.

    Args:
        silo: the silo's address.
        keys: pinned keys.
        configured: key that the settings name; None to pin the first.
    """

    def __init__(self, silo: str, keys: SiloKeys, configured: str | None) -> None:
        self._silo = silo
        self._keys = keys
        self._configured = configured

    def require(self, key: bytes, changes: Sequence[KeyChange]) -> None:
        """Accept the silo's present key: the trusted one, or one that came after it.

        Args:
            key: the present one.
            changes: by which it came after earlier ones, as the silo says.

        Raises:
            UntrustedCardError: it is neither.
            StorageError: the file of the pinned key is damaged, or cannot be written.
        """
        pinned = None if self._configured is not None else self._keys.pinned(self._silo)
        known = self._configured or (None if pinned is None else pinned.key)
        if known is not None and key not in keys_after(bytes.fromhex(known), changes):
            raise UntrustedCardError(self._refusal(key.hex(), pinned))
        if self._configured is None and (pinned is None or pinned.key != key.hex()):
            self._keys.pin(self._silo, key)

    def _refusal(self, key: str, pinned: SiloKey | None) -> str:
        if pinned is None:
            return (
                f"The silo at {self._silo} signs with key {key}, and silo_key is {self._configured}. Ask its operator "
                "for its key (sealign-server signing-key show), and set silo_key to it. Nothing was encrypted."
            )
        return (
            f"The silo at {self._silo} signs with key {key}, and this client pinned key {pinned.key} on "
            f"{pinned.pinned}. It is another silo, or something stands between. Ask its operator for its key "
            "(sealign-server signing-key show). If that is the one it signs with, accept it: sealign silo-keys delete "
            f"{self._silo}. Nothing was encrypted."
        )


def _read(path: Path) -> SiloKey:
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != _FORMAT:
            raise ValueError("another format")  # noqa: TRY301
        found = SiloKey(**content)
        if len(bytes.fromhex(found.key)) != KEY_BYTES:
            raise ValueError("no key")  # noqa: TRY301
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"The file {path}, which holds the key of a silo, is damaged. Delete it; the next use pins the key anew."
        ) from error
    return found
