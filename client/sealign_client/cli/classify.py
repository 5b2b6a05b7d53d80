"""``sealign classify``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealign.app.options import with_options
from sealign.app.terminal import visible
from sealign.errors import InvalidInputError
from sealign_client.cli.common import AsJson, Config, iterate_file, settings_of, single_command
from sealign_client.results import Classification
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

if TYPE_CHECKING:
    from sealign_client.blocking import Client
    from sealign_client.daemon.running import RunningDaemon

app = single_command()


@app.command()
@with_options(ClientSettings, exclude=("model", *DAEMON_SETTINGS))
def classify(
    given: dict[str, Any],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, one per line from --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="File of texts, one per line; - for standard input.")] = None,
    task: Annotated[str | None, typer.Option(help="The silo's task; not needed if there is one.")] = None,
    as_json: AsJson = False,
    use_daemon: Annotated[
        bool, typer.Option("--daemon/--no-daemon", help="Use a daemon of yours that runs with the same settings.")
    ] = True,
    config: Config = None,
) -> None:
    """Classify texts through ciphertexts: label, probability, and whether the text is in distribution.

    Results appear as they are made. A probability is "-" if the silo could not calibrate it for your map.
    """
    from sealign.app.progress import progress

    if texts and file is not None:
        raise InvalidInputError("Give texts as arguments or in --file, not both.")
    settings = settings_of(config, given)
    wanted: Iterator[str] = iter(texts) if texts else iterate_file(file)
    seen = sys.stdout is not None and sys.stdout.isatty()
    show = nullcontext(_ignore) if seen else progress("classifying", len(texts) if texts else None)
    with _classifier(settings, use_daemon) as classifier, show as advance:
        for result in classifier.classify_each(wanted, task):
            typer.echo(_json(result) if as_json else _line(result))
            advance(1)


def _classifier(settings: ClientSettings, use_daemon: bool) -> RunningDaemon | Client:
    """Return a running daemon with these settings, which has a model loaded, or a client."""
    if use_daemon:
        from sealign_client.daemon.running import RunningDaemon

        if (daemon := RunningDaemon.find(settings)) is not None:
            return daemon
    from sealign_client.blocking import Client

    return Client(settings)


def _ignore(_: int) -> None:
    """Show no progress where the results themselves do."""


def _json(result: Classification) -> str:
    return json.dumps({name: value for name, value in vars(result).items() if name != "labels"})


def _line(result: Classification) -> str:
    probability = "-" if result.probability is None else f"{result.probability:.4f}"
    mark = "\tout of distribution" if result.in_distribution is False else ""
    return f"{visible(result.label)}\t{probability}{mark}"
