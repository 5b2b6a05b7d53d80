"""Settings as options of a command and as a page of reference."""

from __future__ import annotations

import enum
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sealign.app.settings import LayeredSettings, holds_several, type_of, variable
from sealign.shipped import GENERAL

_Result = TypeVar("_Result")

_PUBLIC_TEXTS = (
    'FILE has one text per line. "general" stands for the 20,000 that ship with Sealign, "general:4000" for the first '
    "4,000 of them."
)

_PLAIN_NAME = re.compile(r"[\w @%+=,.-]+")
"""Names of files that mean the same to every shell."""


def public_texts_option(said: str) -> Any:
    """Return the option ``--public``, whose values :meth:`sealign.alignment.PublicSet.named` reads.

    Args:
        said: the first sentences of its help.
    """
    help_text = f"{said} {_PUBLIC_TEXTS}"
    return typer.Option("--public", help=help_text, metavar="FILE", autocompletion=complete_public_texts)


def complete_public_texts(incomplete: str) -> list[str]:
    """Return what a shell offers where public texts are named: ``general``, and files of the current directory.

    Nothing is returned once the name can only be a file's: shells then complete it themselves, folders and quotes too.
    A name with characters that are special to a shell is left to the shell as well.
    """
    if not GENERAL.startswith(incomplete):
        return []
    files = [path for path in Path().glob(f"{incomplete}*") if not path.name.startswith(".")]
    return [GENERAL, *sorted(f"{path}/" if path.is_dir() else str(path) for path in files if _is_plain(path.name))]


def with_options(
    settings: type[LayeredSettings], *, exclude: Iterable[str] = ()
) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]:
    """Return a decorator that gives a typer command one option per setting, in place of its parameter ``given``.

    The command gets what was given as ``given``, a dict by name of field for :meth:`LayeredSettings.load`::

        @app.command()
        @with_options(ServeSettings)
        def serve(directory: Path, given: dict[str, Any]) -> None: ...

    Help, default and variable come from the field. Text is checked when the settings are loaded, as everywhere.
    A secret has no option: a command line is seen by every user of the machine.

    Args:
        settings: the class of settings.
        exclude: fields that this command has no option for.
    """
    fields = {name: field for name, field in settings.model_fields.items() if name not in set(exclude)}

    def decorate(command: Callable[..., _Result]) -> Callable[..., _Result]:
        options = [_option(settings, name) for name, field in fields.items() if not _is_secret(field)]
        names = {option.name for option in options}

        @functools.wraps(command)
        def wrapper(**arguments: Any) -> _Result:
            given = {name: arguments.pop(name) for name in names}
            return command(**arguments, given={name: value for name, value in given.items() if value is not None})

        kept = _parameters(command)
        wrapper.__signature__ = inspect.Signature([*kept, *options])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *options)}
        del wrapper.__wrapped__
        return wrapper

    return decorate


def reference_table(settings: type[LayeredSettings]) -> str:
    """Return a Markdown table of the settings: key, flag, variable, values, default, description."""
    rows = ["| Key | Flag | Variable | Values | Default | Description |", "|---|---|---|---|---|---|"]
    for name, field in settings.model_fields.items():
        flag = "" if _is_secret(field) else f"`{_flag(name, field)}`"
        default = "required" if field.is_required() else _code(_text(field.default))
        cells = (f"`{name}`", flag, f"`{variable(settings, name)}`", _values(field), default, _description(name, field))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _parameters(command: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return a command's parameters but ``given``, with resolved annotations, to be given by keyword."""
    hints = get_type_hints(command, include_extras=True)
    return [
        parameter.replace(annotation=hints.get(name, parameter.annotation), kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "given"
    ]


def _option(settings: type[LayeredSettings], name: str) -> inspect.Parameter:
    field = settings.model_fields[name]
    default = " Required." if field.is_required() else ""
    if _text(field.default):
        default = f" Default: {_text(field.default)}."
    help_text = f"{_description(name, field)}{default} Variable: {variable(settings, name)}."
    metavar = "A,B,..." if holds_several(field) else None
    option = typer.Option(_flag(name, field), help=help_text, metavar=metavar, show_default=False)
    annotation = Annotated[_kind(field) | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _kind(field: FieldInfo) -> type:
    """Return the type that the command line reads a field as; text if it has no simple one."""
    found = type_of(field)
    if isinstance(found, type) and (issubclass(found, enum.Enum) or found in (bool, int, float, Path)):
        return found
    return str


def _is_plain(name: str) -> bool:
    return _PLAIN_NAME.fullmatch(name) is not None


def _is_secret(field: FieldInfo) -> bool:
    return type_of(field) is SecretStr


def _flag(name: str, field: FieldInfo) -> str:
    plain = name.replace("_", "-")
    return f"--{plain}/--no-{plain}" if _kind(field) is bool else f"--{plain}"


def _description(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise TypeError(f"setting {name} has no description")
    return field.description.rstrip(".") + "."


def _values(field: FieldInfo) -> str:
    """Return what may be given: kind, choices and bounds."""
    kind = _kind(field)
    if issubclass(kind, enum.Enum):
        return ", ".join(_code(str(choice.value)) for choice in kind)
    name = {bool: "yes or no", int: "integer", float: "number", Path: "path"}.get(kind, "text")
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(mark, bound)}"
        for mark in field.metadata
        for bound, sign in signs.items()
        if hasattr(mark, bound)
    ]
    return ", ".join([name, *bounds])


def _text(value: object) -> str:
    """Return a default as it would be typed; an empty string for none."""
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, (tuple, list, set, frozenset)):
        return ",".join(_text(part) for part in value)
    return str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
