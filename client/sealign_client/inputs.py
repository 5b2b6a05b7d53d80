"""What an application may give as texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

from sealign.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sealign.alignment import PublicSet
    from sealign_client.settings import ClientSettings

Texts: TypeAlias = Iterable[str]
"""A list, tuple or iterator of texts, a `PublicSet`, a numpy array of texts or a pandas Series."""

_EMBEDDINGS = "Give a numpy array of floats with shape (texts, dimension)."
_ACCEPTED = "Give a text, or a list, tuple, iterator, numpy array or pandas Series of texts."


def iterate_texts(given: Any) -> Iterator[str]:
    """Yield the texts in what an application gave, in their order.

    Raises:
        InvalidInputError: it is something else, or an item is no text, named by its index and type.
    """
    for index, item in enumerate(_items(given)):
        if not isinstance(item, str):
            raise InvalidInputError(f"Item {index} is of type {type(item).__name__}, not a text. {_ACCEPTED}")
        yield str(item)


def faulty_text(number: int, fault: InvalidInputError) -> InvalidInputError:
    """Return the error about one of many texts, by its number from 1: the fault itself counts within a piece."""
    return InvalidInputError(f"Of the texts given, number {number}: {fault}")


def _items(given: Any) -> Iterable[object]:
    if isinstance(given, str):
        return (given,)
    import numpy as np

    from sealign.alignment import PublicSet

    if isinstance(given, PublicSet):
        return given.texts
    if isinstance(given, np.ndarray):
        if given.ndim != 1 or given.dtype.kind not in "UOT":
            raise InvalidInputError(
                f"An array of {given.dtype} with shape {given.shape} holds no texts. Give embeddings to "
                f"client.logits. {_ACCEPTED}"
            )
        return given
    if isinstance(given, (list, tuple, Iterator)) or _is_series(given):
        return given  # type: ignore[no-any-return]
    hint = " Open the file and give its lines." if isinstance(given, PathLike) else ""
    raise InvalidInputError(f"A value of type {type(given).__name__} holds no texts.{hint} {_ACCEPTED}")


def _is_series(given: Any) -> bool:
    """Return whether it is a pandas or polars Series: one-dimensional, and a sequence of values in order."""
    kind = type(given)
    return kind.__name__ in ("Series", "Index") and kind.__module__.split(".")[0] in ("pandas", "polars")


def checked_settings(settings: Any, encoder: Any, fields: dict[str, Any]) -> ClientSettings:
    """Return the settings of a client: those given, or made of keyword arguments.

    Args:
        settings: None for those that the fields make.
        encoder: a loaded encoder, or the name of one, besides.
        fields: of settings, by name.

    Raises:
        InvalidInputError: something that cannot be used, by name; both kinds; or neither an encoder nor a model.
    """
    from sealign_client.settings import ClientSettings, client_settings

    if encoder is not None and not isinstance(encoder, str):
        _require_encoder(encoder)
    if settings is None:
        settings = client_settings(encoder=encoder if isinstance(encoder, str) else None, **fields)
    elif fields:
        raise InvalidInputError(f"Give settings or keyword arguments, not both: {', '.join(sorted(fields))}.")
    if not isinstance(settings, ClientSettings):
        raise InvalidInputError(
            f"A value of type {type(settings).__name__} is no ClientSettings. Give settings by name: silo=…, encoder=…."
        )
    if encoder is None and settings.encoder is None and settings.model is None:
        raise InvalidInputError("Name the local encoder: encoder=…, --encoder or SEALIGN_CLIENT_ENCODER.")
    return settings


def _require_encoder(given: Any) -> None:
    from sealign.encoders import EncoderCard

    if not isinstance(getattr(given, "card", None), EncoderCard) or not callable(getattr(given, "encode", None)):
        raise InvalidInputError(
            f"A value of type {type(given).__name__} is not an encoder: it needs a card (EncoderCard) and a method "
            "encode. Give the name of one, or implement sealign.encoders.Encoder."
        )


def is_embeddings(given: Any) -> bool:
    """Return whether an application gave an array of floats, which holds embeddings if its shape is right."""
    return getattr(getattr(given, "dtype", None), "kind", "") == "f" and getattr(given, "ndim", 0) == 2


def checked_embeddings(given: Any) -> NDArray[np.floating]:
    """Return embeddings, shape (n, d).

    Raises:
        InvalidInputError: something else than an array of floats of that form.
    """
    import numpy as np

    if not isinstance(given, np.ndarray):
        raise InvalidInputError(f"A value of type {type(given).__name__} holds no embeddings. {_EMBEDDINGS}")
    if given.dtype.kind != "f" or given.ndim != 2:
        raise InvalidInputError(
            f"An array of {given.dtype} with shape {given.shape} holds no embeddings. {_EMBEDDINGS}"
        )
    return given


def checked_public_set(given: Any) -> PublicSet:
    """Return a public set.

    Raises:
        InvalidInputError: it is something else.
    """
    from sealign.alignment import PublicSet

    if isinstance(given, PublicSet):
        return given
    raise InvalidInputError(
        f"A value of type {type(given).__name__} is not a public set. Make one: PublicSet.named('general'), "
        "PublicSet.from_file(path), or PublicSet(tuple_of_texts)."
    )


def checked_sequence(given: Sequence[str] | Any) -> list[str]:
    """Return the texts that were given, as a list."""
    return list(iterate_texts(given))
