"""Settings of a client: arguments first, then SEALIGN_… variables, then a TOML file."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr

from sealign.app.settings import LayeredSettings
from sealign.ckks import SecurityTable
from sealign.errors import InvalidInputError
from sealign.protocol import Placement


class AlignmentMode(str, enum.Enum):
    """What the silo sees of the client's embeddings of public texts, and who has the map."""

    PLAIN = "plain"
    """The embeddings; the silo learns the map and keeps it."""
    ENCRYPTED = "encrypted"
    """Ciphertexts; the client gets the cross-covariance, learns the map and keeps it."""


class ClientSettings(LayeredSettings):
    """Which silo, which encoder, which keys.

    Attributes:
        silo: address and port of the silo.
        encoder: the local model: ``family:model?options``, or a hub name.
        model: the local causal language model that text is generated with: a hub name or path, with ``?options``.
        tls_ca: authority of the silo's certificate, PEM; the system's authorities if unset.
        tls_cert, tls_key: the client's certificate and key, where the silo asks for one.
        key_directory: keep secret keys there between runs; unset, they live as long as the client.
        key_passphrase: protects stored keys.
        map_directory: keep maps learned under encryption there; unset, they live as long as the client.
        tell_map: tell the silo what a map learned under encryption makes of public texts, so that it fits heads to it.
        adaptation: file that `sealign adapt` wrote, of texts like those to be classified.
        placement: where the map is applied; unset, at the client if it has a map for the silo, else at the silo.
        security_table: table that the silo's plans must satisfy.
        timeout: seconds to wait for a reply.
    """

    silo: str = Field(pattern=r"^.+:\d+$")
    encoder: str | None = Field(default=None, min_length=1)
    model: str | None = Field(default=None, min_length=1)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    key_directory: Path | None = None
    key_passphrase: SecretStr | None = None
    map_directory: Path | None = None
    tell_map: bool = False
    adaptation: Path | None = None
    placement: Placement | None = None
    security_table: SecurityTable = SecurityTable.CLASSICAL
    timeout: float = Field(default=60.0, gt=0)


def client_settings(file: Path | None = None, **arguments: Any) -> ClientSettings:
    """Settings from arguments (None: not given), environment and an optional TOML file.

    Raises:
        InvalidInputError: a setting is missing or out of bounds, by name; or the file is not TOML.
    """
    if file is not None and not file.is_file():
        raise InvalidInputError(f"there is no settings file {file}")
    return ClientSettings.load(file, arguments)
