"""The client's secret keys, one for each parameter set that the silo's plans use."""

from __future__ import annotations

from pathlib import Path

from sealign.ckks import ParameterSet, SecretKey


class KeyRing:
    """Makes keys when they are first needed; keeps them in files only if given a directory.

    Args:
        directory: where to keep keys (mode 0600) between runs; None for keys that die with the process.
        passphrase: protects the files.
    """

    def __init__(self, directory: Path | None = None, passphrase: str | None = None) -> None:
        self._directory = directory
        self._passphrase = passphrase
        self._keys: dict[str, SecretKey] = {}

    def key(self, parameters: ParameterSet) -> SecretKey:
        """The key of a parameter set.

        Raises:
            StorageError, InvalidInputError: a stored key cannot be read, opened or written.
        """
        if parameters.name not in self._keys:
            self._keys[parameters.name] = self._stored_or_new(parameters)
        return self._keys[parameters.name]

    def _stored_or_new(self, parameters: ParameterSet) -> SecretKey:
        if self._directory is None:
            return SecretKey.generate(parameters)
        path = self._directory / f"{parameters.name}.key"
        if path.exists():
            return SecretKey.load(path, self._passphrase)
        key = SecretKey.generate(parameters)
        key.save(path, self._passphrase)
        return key
