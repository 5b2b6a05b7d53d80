"""The socket by which a user's own commands find a running daemon: one for each set of settings.

It lies in the user's data folder, where nobody else can listen in the daemon's place.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from sealign_client.local.directory import data_directory
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings
from sealign_client.version import __version__

_MAX_BYTES = 104
"""Length of a socket's path that every system accepts."""
_NO_MATTER = {*DAEMON_SETTINGS, "key_passphrase", "model", "timeout"}
"""Settings that change no classification. A passphrase could be guessed from its digest."""


def private_socket(settings: ClientSettings) -> Path | None:
    """Return where the daemon with these settings listens for its user's commands; None where there is no room."""
    state = sha256(__version__.encode())
    for name in sorted(ClientSettings.model_fields.keys() - _NO_MATTER):
        state.update(f"\0{name}={_settled(getattr(settings, name))}".encode("utf-8", "surrogatepass"))
    path = data_directory() / f"{state.hexdigest()[:12]}.sock"
    return path if os.name == "posix" and len(os.fsencode(path)) <= _MAX_BYTES else None


def _settled(value: object) -> object:
    """Return a setting such that equal ones mean the same from every directory, and a changed file another."""
    if isinstance(value, Path):
        found = value.absolute()
        changed = found.stat().st_mtime_ns if found.is_file() else 0
        return f"{found}@{changed}"
    if isinstance(value, str):
        family, separator, rest = value.partition(":")
        model = Path((rest if separator else family).partition("?")[0])
        return f"{Path.cwd()}:{value}" if model.name and not model.is_absolute() and model.exists() else value
    return value
