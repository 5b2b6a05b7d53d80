"""Settings of a silo: the command line first, then SEALIGN_… variables, then the silo's silo.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from sealign.app.settings import LayeredSettings
from sealign.ckks import DEFAULT_PRECISION, SecurityTable
from sealign.generation import vocabulary as generation

SETTINGS_FILE = "silo.toml"


class ServeSettings(LayeredSettings):
    """How a silo serves. Every field is a flag, a variable (SEALIGN_ and its name) and a key of silo.toml."""

    listen: str = Field(default="127.0.0.1:7443", pattern=r"^.+:\d+$")
    tls_cert: Path
    tls_key: Path
    tls_client_ca: Path | None = None
    workers: int = Field(default=1, ge=1, le=256)
    precision: float = Field(default=DEFAULT_PRECISION, gt=0)
    security_table: SecurityTable = SecurityTable.CLASSICAL
    batch_rows: tuple[Annotated[int, Field(ge=1, le=1 << 16)], ...] = Field(default=(1, 32, 1024), min_length=1)
    max_batch_weights_mb: int = Field(default=64, ge=1)
    max_keys: int = Field(default=1024, ge=1)
    zeros_per_key: int = Field(default=4, ge=0)
    max_concurrent: int = Field(default=64, ge=1)
    max_releases: int = Field(default=1, ge=1)
    alignment_seconds: float = Field(default=120.0, gt=0)
    alignment_memory_mb: int = Field(default=512, ge=16)
    product_hours: float = Field(default=24.0, gt=0)
    release_texts: bool = False
    fit_heads: bool = True
    ood_directions: int = Field(default=8, ge=0, le=256)
    max_maps: int = Field(default=64, ge=1)
    generation_precision: float = Field(default=generation.DEFAULT_PRECISION, gt=0)
    max_tokens: int = Field(default=1024, ge=1, le=1 << 20)
    drain_seconds: float = Field(default=10.0, ge=0)
    log_level: str = "info"

    @field_validator("listen")
    @classmethod
    def _has_a_port(cls, listen: str) -> str:
        if int(listen.rpartition(":")[2]) > 65535:
            raise ValueError("ports are 0 to 65535")
        return listen


def serve_settings(directory: Path, flags: dict[str, Any]) -> ServeSettings:
    """Settings for the silo in ``directory``; flags that are None were not given.

    Raises:
        InvalidInputError: a setting is missing or out of bounds, by name; or the file is not TOML.
    """
    return ServeSettings.load(directory / SETTINGS_FILE, flags)
