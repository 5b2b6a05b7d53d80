"""An encrypted alignment under way, kept beside the map that it will make: another process can go on with it."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree

import numpy as np
from numpy.typing import NDArray

from sealign.ckks import ParameterSet, PublicKey, SecretKey, SeededCiphertext, parameter_set
from sealign.errors import StorageError
from sealign.files import load_arrays, save_arrays
from sealign_client.keyring import KeyRing

_SESSION = "session.safetensors"


class UnfinishedAlignment:
    """Private files (mode 0600) in a directory of their own: session, keys and embeddings of the public texts.

    They are there from the silo's offer until the map is made.

    Args:
        directory: of this alignment alone.
        passphrase: protects the secret key.

    Raises:
        StorageError: the files are damaged.
    """

    def __init__(self, directory: Path, passphrase: str | None = None) -> None:
        self._directory = directory
        self._keys = KeyRing(directory, passphrase)
        self._public_key: PublicKey | None = None
        self.session = b""
        self.embeddings: NDArray[np.float32] | None = None
        if (directory / _SESSION).exists():
            self._load()

    def key(self, parameters: ParameterSet) -> SecretKey:
        """The secret key that the session began with, or a new one, with the public key that the silo knows.

        Raises:
            StorageError, InvalidInputError: a stored key cannot be read, opened or written.
        """
        key = self._keys.key(parameters)
        if self._public_key is not None and self._public_key.parameters == parameters:
            key.public_key = self._public_key  # a loaded key makes another one, which does not go with the sums
        return key

    def keep(self, session: bytes, public_key: PublicKey, embeddings: NDArray[np.float32]) -> None:
        """Keep what is needed to go on with a session.

        Raises:
            StorageError: the file could not be written.
        """
        arrays: dict[str, NDArray[np.generic]] = {
            "embeddings": embeddings,
            "seed": np.frombuffer(public_key.seeded.seed, np.uint8),
            "words": np.frombuffer(public_key.seeded.words, np.uint8),
        }
        metadata = {"session": session.hex(), "parameters": public_key.parameters.name}
        save_arrays(self._directory / _SESSION, arrays, metadata, mode=0o600)
        self.session, self.embeddings, self._public_key = session, embeddings, public_key

    def remove(self) -> None:
        """The map is made, or never will be: forget session and keys."""
        (self._directory / _SESSION).unlink(missing_ok=True)  # first: without its keys a session is of no use
        rmtree(self._directory, ignore_errors=True)
        self.session, self.embeddings, self._public_key = b"", None, None

    def _load(self) -> None:
        path = self._directory / _SESSION
        try:
            arrays, metadata = load_arrays(path)
            seeded = SeededCiphertext(arrays["seed"].tobytes(), arrays["words"].tobytes())
            self._public_key = PublicKey(parameter_set(metadata["parameters"]), seeded)
            self.session, self.embeddings = bytes.fromhex(metadata["session"]), arrays["embeddings"]
            if not any(self._directory.glob("*.key")):
                raise StorageError(f"the key of {path} is missing")  # noqa: TRY301
        except (StorageError, KeyError, ValueError) as error:
            raise StorageError(
                f"{path}, which keeps an alignment that was interrupted, is damaged; delete {self._directory} to start "
                "again"
            ) from error
