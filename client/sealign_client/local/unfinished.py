"""An encrypted alignment under way, in files beside the map that it will make: another process can resume it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.ckks import CheckRows, PublicKey, SecretKey, SeededCiphertext, VerifiedRows
from sealign.errors import InvalidInputError, StorageError
from sealign.files import load_arrays, load_rows, save_arrays, save_rows
from sealign_client.local.directory import private

_SESSION, _KEY, _ROWS = "session.safetensors", "alignment.key", "public.rows"
_KINDS = {"float16": np.float16, "float32": np.float32}

Rows: TypeAlias = NDArray[np.float32] | NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class BegunAlignment:
    """What another process needs to resume an encrypted alignment.

    Attributes:
        session: the silo's name for it.
        key: of this alignment alone, with the public key that the silo's sums are under.
        rows: of the public texts, (n, d), perhaps mapped from a file.
        checks: the hidden check rows; they stay secret.
    """

    session: bytes
    key: SecretKey
    rows: Rows
    checks: CheckRows

    @classmethod
    def of(cls, session: bytes, rows: Rows, verified: VerifiedRows) -> BegunAlignment:
        """Return what is to be stored of verified rows."""
        return cls(session, verified.key, rows, verified.checks)


class UnfinishedAlignment:
    """Private files (mode 0600) in a directory of their own: session, key, check rows, rows of public texts.

    They are there from the silo's offer until the map is made.

    Args:
        directory: of this alignment alone.
        passphrase: protects the secret key.

    Raises:
        StorageError: the files are damaged.
        InvalidInputError: the passphrase is missing or wrong.
    """

    def __init__(self, directory: Path, passphrase: str | None = None) -> None:
        self._directory = directory
        self._passphrase = passphrase
        self.begun = self._loaded() if (directory / _SESSION).exists() else None

    def keep(self, begun: BegunAlignment) -> None:
        """Store what is needed to resume.

        Raises:
            StorageError: a file could not be written.
        """
        private(self._directory)
        seeded = begun.key.public_key.seeded
        arrays: dict[str, NDArray[np.generic]] = {
            "seed": np.frombuffer(seeded.seed, np.uint8),
            "words": np.frombuffer(seeded.words, np.uint8),
            **begun.checks._asdict(),
        }
        begun.key.save(self._directory / _KEY, self._passphrase)
        save_rows(self._directory / _ROWS, begun.rows)
        facts = {"session": begun.session.hex(), "kind": begun.rows.dtype.name, "width": str(begun.rows.shape[1])}
        save_arrays(self._directory / _SESSION, arrays, facts, mode=0o600)
        self.begun = begun

    def remove(self) -> None:
        """Delete the files: the map is made, or never will be."""
        (self._directory / _SESSION).unlink(missing_ok=True)  # first: without its key a session is of no use
        rmtree(self._directory, ignore_errors=True)
        self.begun = None

    def _loaded(self) -> BegunAlignment:
        path = self._directory / _SESSION
        try:
            arrays, metadata = load_arrays(path)
            seeded = SeededCiphertext(arrays["seed"].tobytes(), arrays["words"].tobytes())
            key = SecretKey.load(self._directory / _KEY, self._passphrase)
            # A loaded key makes another public key, which does not go with the silo's sums.
            key.public_key = PublicKey(key.parameters, seeded)
            checks = CheckRows(arrays["signs"], arrays["scales"], arrays["places"])
            path, kind = self._directory / _ROWS, _KINDS[metadata["kind"]]
            rows = load_rows(path, int(metadata["width"]), "Delete its directory, then align again.", kind)
            return BegunAlignment(bytes.fromhex(metadata["session"]), key, rows, checks)
        except InvalidInputError:
            raise
        except (StorageError, KeyError, ValueError) as error:
            raise StorageError(
                f"The files of an interrupted alignment in {self._directory} are damaged. Delete that directory to "
                "start again."
            ) from error
