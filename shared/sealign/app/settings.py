"""Settings in layers: flags or arguments first, then SEALIGN_… variables, then a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from sealign.errors import InvalidInputError

_Settings = TypeVar("_Settings", bound="LayeredSettings")


class LayeredSettings(BaseSettings):
    """Every field is a flag, a variable (SEALIGN_ and its name) and a key of the file."""

    model_config = SettingsConfigDict(env_prefix="SEALIGN_", extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the file."""
        del dotenv_settings, file_secret_settings
        file = settings_cls.model_config.get("toml_file")
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file))

    @classmethod
    def load(cls: type[_Settings], file: Path | None, arguments: Mapping[str, Any]) -> _Settings:
        """Settings from arguments (None: not given), the environment and a TOML file, which need not exist.

        Raises:
            InvalidInputError: a setting is missing or out of bounds, by name; or the file is not TOML.
        """
        namespace = {"__module__": cls.__module__, "model_config": SettingsConfigDict(toml_file=file)}
        with_file: type[_Settings] = type(cls.__name__, (cls,), namespace)
        source = file or "a settings file"
        try:
            return with_file(**{name: value for name, value in arguments.items() if value is not None})
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
            raise InvalidInputError(
                f"the settings are not usable: {faults}. Set them as flags, SEALIGN_… variables or keys of {source}."
            ) from None
        except ValueError as error:  # not TOML; or a variable that should be JSON and is not
            raise InvalidInputError(f"{source} or a SEALIGN_… variable is malformed: {error}") from None
