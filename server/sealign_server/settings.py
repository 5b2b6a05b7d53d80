"""Settings of a silo: the command line first, then SEALIGN_… variables, then the silo's silo.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from sealign.ckks import DEFAULT_PRECISION, SecurityTable
from sealign.errors import InvalidInputError

SETTINGS_FILE = "silo.toml"


class ServeSettings(BaseSettings):
    """How a silo serves. Every field is a flag, a variable (SEALIGN_ and its name) and a key of silo.toml."""

    model_config = SettingsConfigDict(env_prefix="SEALIGN_", extra="ignore")

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
    drain_seconds: float = Field(default=10.0, ge=0)
    log_level: str = "info"

    @field_validator("listen")
    @classmethod
    def _has_a_port(cls, listen: str) -> str:
        if int(listen.rpartition(":")[2]) > 65535:
            raise ValueError("ports are 0 to 65535")
        return listen

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the silo's file."""
        del dotenv_settings, file_secret_settings
        file = settings_cls.model_config.get("toml_file")
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file))


def serve_settings(directory: Path, flags: dict[str, Any]) -> ServeSettings:
    """Settings for the silo in ``directory``; flags that are None were not given.

    Raises:
        InvalidInputError: a setting is missing or out of bounds, by name; or the file is not TOML.
    """

    class _WithFile(ServeSettings):
        model_config = SettingsConfigDict(toml_file=directory / SETTINGS_FILE)

    try:
        return _WithFile(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidInputError(
            f"settings of the silo are not usable: {faults}. Set them as flags, SEALIGN_… variables or keys of "
            f"{directory / SETTINGS_FILE}."
        ) from None
    except ValueError as error:  # not TOML; or a variable that should be JSON and is not
        raise InvalidInputError(f"{directory / SETTINGS_FILE} or a SEALIGN_… variable is malformed: {error}") from None
