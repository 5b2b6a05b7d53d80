"""From settings to a loaded encoder, through the entry points of installed packages."""

from __future__ import annotations

from typing import cast

from sealign.encoders.encoder import Encoder, PlugIn, TextEncoder, one_line
from sealign.encoders.joined import JoinedEncoder
from sealign.encoders.settings import ENTRY_POINT_GROUP, EncoderSettings, installed_families
from sealign.errors import InvalidInputError

_INSTALL = {"transformers": "sealign[client]", "use": "sealign[use]"}


def load_encoder(settings: EncoderSettings) -> TextEncoder:
    """Load the encoder that ``settings`` describe, behind the door that all encoders share.

    Raises:
        InvalidInputError: the family is unknown, a package it needs is missing, the model cannot be loaded, or it
            fails the checks that follow loading.
    """
    if settings.beside is not None:
        return JoinedEncoder(
            [load_encoder(settings.model_copy(update={"beside": None})), load_encoder(settings.beside)]
        )
    families = installed_families()
    if settings.family not in families:
        raise InvalidInputError(
            f"there is no encoder family {settings.family!r}; installed are "
            f"{', '.join(sorted(families)) or 'none'}. Name one of these, or install a package "
            f"with an entry point in the group {ENTRY_POINT_GROUP}."
        )
    try:
        encoder_class = families[settings.family].load()
    except ModuleNotFoundError as error:
        package = _INSTALL.get(settings.family, error.name)
        raise InvalidInputError(
            f"encoder family {settings.family!r} needs the module {error.name!r}, which is not "
            f'installed; run: pip install "{package}"'
        ) from error
    try:
        encoder = encoder_class(settings)
    except InvalidInputError:
        raise
    except Exception as error:
        raise InvalidInputError(
            f"the encoder {settings.family}:{settings.model} could not be loaded ({one_line(error)}); "
            "check its files, or choose another model"
        ) from error
    return encoder if isinstance(encoder, TextEncoder) else PlugIn(cast(Encoder, encoder))
