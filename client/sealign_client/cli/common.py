"""What the commands have in common: settings, texts from files, yes and no."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from sealign.app.terminal import standard_input
from sealign.errors import InvalidInputError
from sealign.lines import iterate_lines, read_lines
from sealign_client.records import opened
from sealign_client.settings import ClientSettings, client_settings

Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
MapDirectory = Annotated[
    Path | None,
    typer.Option("--map-directory", envvar="SEALIGN_CLIENT_MAP_DIRECTORY", help="By default in your data folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def single_command() -> typer.Typer:
    """Return the command line of one command."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def settings_of(config: Path | None, given: dict[str, Any], **more: Any) -> ClientSettings:
    """Return the settings of a command."""
    return client_settings(config, **given, **more)


def texts_of(file: Path) -> list[str]:
    """Return the texts of a file, one per line; "-" is standard input."""
    return read_lines(standard_input() if str(file) == "-" else file)


def iterate_file(file: Path | None) -> Iterator[str]:
    """Yield the texts of a file as they are read, in constant memory; "-" or None is standard input.

    Raises:
        NotFoundError, StorageError: the file is missing or cannot be read.
        InvalidInputError: a line is faulty, named by its number.
    """
    if file is None or str(file) == "-":
        if sys.stdin is not None and sys.stdin.isatty():
            typer.echo("Reading texts from standard input, one per line. End with Ctrl-D.", err=True)
        yield from _texts(standard_input(), "standard input")
        return
    with opened(file) as stream:
        yield from _texts(stream, str(file))


def _texts(stream: BinaryIO, name: str) -> Iterator[str]:
    empty = True
    for line in iterate_lines(stream):
        if line.fault is not None:
            raise InvalidInputError(f"{name}: line {line.number} {line.fault}")
        empty = False
        yield line.text
    if empty:
        raise InvalidInputError(f"There are no texts in {name}.")
