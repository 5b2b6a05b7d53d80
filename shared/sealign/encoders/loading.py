"""From settings to a loaded encoder, through the entry points of installed packages."""

from __future__ import annotations

from typing import cast

from sealign.encoders.encoder import Encoder
from sealign.encoders.settings import ENTRY_POINT_GROUP, EncoderSettings, installed_families
from sealign.errors import InvalidInputError

_INSTALL = {"transformers": "sealign[client]", "use": "sealign[use]"}


def load_encoder(settings: EncoderSettings) -> Encoder:
    """Load the encoder that ``settings`` describe.

    Raises:
        InvalidInputError: the family is unknown, a package it needs is missing, or the model
            cannot be loaded or does not give one finite vector for each token.
    """
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
    return cast(Encoder, encoder_class(settings))
