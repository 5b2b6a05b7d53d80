"""``sealign adapt``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sealign.app.options import with_options
from sealign.errors import InvalidInputError
from sealign_client.cli.common import AsJson, Config, settings_of, single_command, texts_of
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

_NO_SILO = "localhost:1"


app = single_command()


@app.command()
@with_options(ClientSettings, exclude=("model", "recentring", *DAEMON_SETTINGS))
def adapt(
    given: dict[str, Any],
    texts: Annotated[Path, typer.Option("--texts", help="Your own texts without labels, one per line, 50 or more.")],
    output: Annotated[Path, typer.Option(help="Recentring file to write, for --recentring.")],
    thresholds: Annotated[
        bool,
        typer.Option(
            "--thresholds",
            help="Also set thresholds of out-of-distribution scores so that 95 % of these texts stay above, 100 texts "
            "or more. Costs one encrypted query per text.",
        ),
    ] = False,
    task: Annotated[str | None, typer.Option(help="For --thresholds; not needed if the silo has one task.")] = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Measure the mean of texts like those you will classify; classify and daemon then remove a map's offset.

    Nothing is sent without --thresholds. With it, the texts' embeddings go to the silo, encrypted as for classify. The
    texts should be mixed as queries will be: a mean of one class hides that class.
    """
    from sealign.app.progress import progress
    from sealign_client.blocking import Client

    lines = texts_of(texts)
    if not thresholds:
        given.setdefault("silo", _NO_SILO)  # which is never asked
    # A recentring file that other settings name may be the one that is to be written.
    settings = settings_of(config, given).model_copy(update={"recentring": None})
    if settings.encoder is None:
        raise InvalidInputError("Name the local encoder: --encoder or SEALIGN_CLIENT_ENCODER.")
    work = "embedding, classifying" if thresholds else "embedding"
    with Client(settings) as client, progress(work, len(lines) * (1 + thresholds)) as advance:
        made = client.adapt(lines, advance, thresholds=thresholds, task=task)
    made.save(output)
    facts = {
        "output": str(output),
        "texts": made.rows,
        "encoder": made.encoder,
        "thresholds": None if made.thresholds is None else made.thresholds.values,
    }
    typer.echo(json.dumps(facts) if as_json else f"wrote {output}, of {len(lines)} texts")
