"""``sealign classify``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from sealign.app.options import with_options
from sealign.app.terminal import visible
from sealign.errors import InvalidInputError
from sealign_client.cli.common import AsJson, Config, iterate_file, settings_of, single_command
from sealign_client.results import Classification
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

app = single_command()


@app.command()
@with_options(ClientSettings, exclude=("model", *DAEMON_SETTINGS))
def classify(
    given: dict[str, Any],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, one per line from --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="File of texts, one per line; - for standard input.")] = None,
    task: Annotated[str | None, typer.Option(help="The silo's task; not needed if there is one.")] = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Classify texts through ciphertexts: label, probability, and whether the text is in distribution.

    Results appear as they are made. A probability is "-" if the silo could not calibrate it for your map.
    """
    from sealign.app.progress import progress
    from sealign_client.blocking import Client

    if texts and file is not None:
        raise InvalidInputError("Give texts as arguments or in --file, not both.")
    settings = settings_of(config, given)
    wanted: Iterator[str] = iter(texts) if texts else iterate_file(file)
    show = nullcontext(_ignore) if sys.stdout.isatty() else progress("classifying", len(texts) if texts else None)
    with Client(settings) as client, show as advance:
        for result in client.classify_each(wanted, task):
            typer.echo(_json(result) if as_json else _line(result))
            sys.stdout.flush()
            advance(1)


def _ignore(_: int) -> None:
    """Show no progress where the results themselves do."""


def _json(result: Classification) -> str:
    return json.dumps({name: value for name, value in vars(result).items() if name != "labels"})


def _line(result: Classification) -> str:
    probability = "-" if result.probability is None else f"{result.probability:.4f}"
    mark = "\tout of distribution" if result.in_distribution is False else ""
    return f"{visible(result.label)}\t{probability}{mark}"
