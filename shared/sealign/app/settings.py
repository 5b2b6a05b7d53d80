"""Settings, each declared once: a field is a flag, a variable, a key of a TOML file and a row of the reference page.

A program has one class of settings and one prefix for its variables::

    class ServeSettings(LayeredSettings):
        prefix: ClassVar[str] = "SEALIGN_SILO_"

        workers: int = Field(default=1, ge=1, description="Worker processes, typically one per core.")

Flags go before variables, variables before the file. What no field has the name of is refused in every layer.
``sealign.app.options`` turns the class into options of a command and into a page.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from sealign.errors import InvalidInputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

_Settings = TypeVar("_Settings", bound="LayeredSettings")

_UNUSABLE = "The settings cannot be used. "

PREFIXES = ("SEALIGN_SILO_", "SEALIGN_CLIENT_", "SEALIGN_HEALTH_")
"""Prefixes of the variables that programs read: the silo, the client, the probe of a container's health."""

# Kubernetes and Docker describe a service named "sealign-silo" to a container in such variables.
_SERVICE_LINK = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


class LayeredSettings(BaseModel):
    """Settings of a program, from flags, variables and a file.

    Attributes:
        prefix: what the names of the program's variables start with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    prefix: ClassVar[str]

    if not TYPE_CHECKING:  # for a type checker, the parameters are the fields

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                layer = _arguments(type(self), fields)
                faults = [*layer.unknown(), *_faults(type(self), error, dict.fromkeys(fields, layer), None)]
                raise InvalidInputError(_UNUSABLE + " ".join(faults)) from error

    @classmethod
    def load(cls: type[_Settings], file: Path | None, arguments: Mapping[str, Any]) -> _Settings:
        """Return the settings that arguments (None: not given), variables (empty: not set) and a TOML file give.

        Raises:
            InvalidInputError: a setting is missing, unknown or out of bounds, by name; or the file cannot be read.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        layers = [
            _arguments(cls, given),
            _Layer(cls, *_variables(cls)),
            _Layer(cls, contents_of(file) if file else {}, lambda name: f"key {name} of {file}"),
        ]
        faults = [fault for layer in layers for fault in layer.unknown()]
        source: dict[str, _Layer] = {}
        for layer in layers:
            for name in layer.values.keys() & cls.model_fields.keys():
                source.setdefault(name, layer)
        try:
            loaded = cls(**{name: layer.decoded(name) for name, layer in source.items()})
        except InvalidInputError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            faults += _faults(cls, error.__cause__, source, file)
        if faults:
            raise InvalidInputError(_UNUSABLE + " ".join(faults))
        return loaded


class _Layer:
    """One source of settings.

    Args:
        owner: the class that says which settings there are.
        values: value by name of field, as the source has it.
        label: function that says where a name stands, for errors.
    """

    def __init__(self, owner: type[LayeredSettings], values: Mapping[str, Any], label: Callable[[str], str]) -> None:
        self.owner, self.values, self.label = owner, values, label

    def unknown(self) -> Iterator[str]:
        """Yield one sentence for each name that is not a setting."""
        for name in sorted(self.values.keys() - self.owner.model_fields.keys()):
            near = _nearest(name, self.owner.model_fields)
            hint = f"did you mean {self.label(near)}?" if near else "remove it."
            yield f"There is no {self.label(name)}: {hint}"

    def decoded(self, name: str) -> Any:
        """Return the value of a field, with text read as a list or table if the field holds one.

        Raises:
            InvalidInputError: the text looks like JSON and is not.
        """
        value = self.values[name]
        if not isinstance(value, str) or not holds_several(self.owner.model_fields[name]):
            return value
        if value.lstrip()[:1] not in ("[", "{"):
            return [part.strip() for part in value.split(",")]
        try:
            return json.loads(value)
        except ValueError:
            raise InvalidInputError(
                f"{_UNUSABLE}{_capital(self.label(name))} is neither JSON nor separated by commas."
            ) from None


def _arguments(settings: type[LayeredSettings], given: Mapping[str, Any]) -> _Layer:
    """Return the layer of flags, or of keyword arguments in Python."""
    return _Layer(settings, given, lambda name: f"setting {name}")


def type_of(field: FieldInfo) -> Any:
    """Return the type of a field, without "or None"."""
    found = field.annotation
    if get_origin(found) in (Union, UnionType):
        found = next(part for part in get_args(found) if part is not type(None))
    return found


def holds_several(field: FieldInfo) -> bool:
    """Return whether a field holds a list, set or table; as text it is JSON, or a list separated by commas."""
    return get_origin(type_of(field)) in (tuple, list, set, frozenset, dict)


def variable(settings: type[LayeredSettings], name: str) -> str:
    """Return the name of a field's variable."""
    return settings.prefix + name.upper()


def _variables(settings: type[LayeredSettings]) -> tuple[dict[str, str], Callable[[str], str]]:
    """Return the program's variables by name of field, and how to name them; unknown ones keep their own names."""
    known = {variable(settings, name): name for name in settings.model_fields}
    values = {}
    for name, value in os.environ.items():
        if not value:
            continue
        if name in known:
            values[known[name]] = value
        elif _is_meant(name, value, settings):
            values[name] = value
    return values, lambda name: f"variable {name if name not in settings.model_fields else variable(settings, name)}"


def _is_meant(name: str, value: str, settings: type[LayeredSettings]) -> bool:
    """Return whether an unknown variable looks as if it were for this program: its prefix, or a setting without it."""
    upper = name.upper()
    if upper.startswith(settings.prefix):
        rest = upper.removeprefix(settings.prefix)
        return not _SERVICE_LINK.fullmatch(rest) and not (rest.endswith("PORT") and _SERVICE_URL.match(value))
    if not upper.startswith("SEALIGN_") or upper.startswith(PREFIXES):
        return False
    return _nearest(upper.removeprefix("SEALIGN_"), settings.model_fields) is not None


def contents_of(file: Path) -> dict[str, Any]:
    """Return what a TOML file holds, unchecked.

    Raises:
        InvalidInputError: it cannot be read, or is not TOML.
    """
    try:
        contents: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidInputError(f"Could not read the settings file {file}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"The settings file {file} is not UTF-8. Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"The settings file {file} is not TOML: {error}.") from None
    return contents


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a wrong one is most like."""
    plain = name.lower().replace("-", "_")
    for prefix in (*PREFIXES, "SEALIGN_"):
        plain = plain.removeprefix(prefix.lower())
    flat = {candidate.replace("_", ""): candidate for candidate in known}
    found = get_close_matches(plain.replace("_", ""), flat, n=1, cutoff=0.8)
    return flat[found[0]] if found else None


def _faults(
    settings: type[LayeredSettings], error: ValidationError, source: Mapping[str, _Layer], file: Path | None
) -> list[str]:
    """Return one sentence for each value that did not pass; unknown names have theirs from the layers."""
    found = error.errors(include_url=False)
    return [_described(settings, fault, source, file) for fault in found if fault["type"] != "extra_forbidden"]


def _described(
    settings: type[LayeredSettings], fault: Mapping[str, Any], source: Mapping[str, _Layer], file: Path | None
) -> str:
    """Return one sentence about a value that did not pass; never the value, which may be a secret."""
    message = str(fault["msg"]).removeprefix("Value error, ").rstrip(".") + "."
    if not fault["loc"]:  # of the settings together
        return message
    name, *inner = (str(part) for part in fault["loc"])
    if fault["type"] == "missing" and not inner:
        key = f" or the key {name} of {file}" if file else ""
        flag = f"--{name.replace('_', '-')}"
        return f"Setting {name} is missing: give {flag}, the variable {variable(settings, name)}{key}."
    place = f", entry {'.'.join(inner)}" if inner else ""
    return f"{_capital(source[name].label(name))}{place}: {message}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
