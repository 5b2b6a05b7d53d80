"""Settings of an invented program, one field of each kind."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr

from sealign.app.addresses import ListenAddress
from sealign.app.settings import LayeredSettings


class Mode(str, enum.Enum):
    """A choice."""

    PLAIN = "plain"
    ENCRYPTED = "encrypted"


class SampleSettings(LayeredSettings):
    """Settings of an invented program."""

    prefix: ClassVar[str] = "SEALIGN_SILO_"

    listen: ListenAddress = Field(default="127.0.0.1:7443", description="Address to listen on")
    tls_cert: Path = Field(description="Certificate chain, PEM")
    tls_client_ca: Path | None = Field(default=None, description="Authority of the clients' certificates")
    workers: int = Field(default=1, ge=1, le=256, description="Worker processes | typically one per core.")
    batch_rows: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 32), min_length=1, description="Rows of a batch"
    )
    limits: dict[str, int] = Field(default={}, description="Maximum rows by task")
    mode: Mode = Field(default=Mode.PLAIN, description="What the silo sees")
    passphrase: SecretStr | None = Field(default=None, min_length=8, description="Protects stored keys")
    share_examples: bool = Field(default=False, description="Share examples with clients")
