"""The directory in which a client keeps its files unless told otherwise."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_data_path

from sealign.errors import StorageError


def data_directory() -> Path:
    """Return the client's directory under the user's data folder; it need not exist."""
    return user_data_path("sealign", appauthor=False)


def maps_directory(given: Path | None) -> Path:
    """Return the directory of maps, pins and canaries: the given one, or that in the client's own."""
    return given or data_directory() / "maps"


def private(directory: Path) -> Path:
    """Return a directory that only its owner can open, made if it is missing.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"could not make the directory {directory}: {error.strerror or error}") from error
    return directory
