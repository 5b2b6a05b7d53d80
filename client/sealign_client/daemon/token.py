"""The token that applications show to the daemon."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from sealign.app.frame import Call, Layer
from sealign.errors import AuthenticationError, InvalidInputError, StorageError
from sealign.files import write_atomically
from sealign_client.local.directory import data_directory, private

_SCHEME = "Bearer "


def default_token_file() -> Path:
    """Return where the token is unless told otherwise."""
    return data_directory() / "daemon.token"


def read_token(path: Path) -> str:
    """Return the token in a file; a missing file is made, mode 0600, with a new token.

    Raises:
        StorageError: the file cannot be read or written, or others can read it.
        InvalidInputError: it holds no token.
    """
    if not path.exists():
        private(path.parent)
        write_atomically(path, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)
    try:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise StorageError(f"The token file {path} can be read by others. Run: chmod 600 {path}")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"could not read the token file {path}: {error}") from error
    if len(token) < 16:
        raise InvalidInputError(f"The token in {path} is shorter than 16 characters. Delete the file for a new one.")
    return token


class TokenLayer(Layer):
    """Refuses calls without the token, sent as ``authorization: Bearer TOKEN``.

    A Unix socket can be opened by its owner alone, and its calls need none.

    Args:
        token: that is expected.
    """

    def __init__(self, token: str) -> None:
        self._expected = (_SCHEME + token).encode()

    def on_begin(self, call: Call) -> None:
        """Refuse a call without the token."""
        if call.context.peer().startswith("unix:"):
            return
        given = next((v for k, v in call.context.invocation_metadata() or () if k == "authorization"), "")
        sent = given if isinstance(given, bytes) else given.encode()
        if not hmac.compare_digest(sent, self._expected):
            raise AuthenticationError(
                "The daemon needs its token. Send the content of its token file in the metadata: "
                "authorization: Bearer TOKEN"
            )
