"""``sealign coverage``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealign.app.options import public_texts_option, with_options
from sealign.errors import InvalidInputError
from sealign_client.cli.common import AsJson, Config, settings_of, single_command, texts_of
from sealign_client.settings import ClientSettings

if TYPE_CHECKING:
    from sealign.alignment import PublicSet
    from sealign.alignment.coverage import Coverage
    from sealign.encoders import Encoder
    from sealign.encoders.encoder import Embeddings


app = single_command()
_OTHERS = [name for name in ClientSettings.model_fields if name != "encoder"]


@app.command()
@with_options(ClientSettings, exclude=_OTHERS)
def coverage(
    given: dict[str, Any],
    texts: Annotated[Path, typer.Option("--texts", help="Your own texts, one per line, 50 or more.")],
    public: Annotated[list[str], public_texts_option("Public texts; may be repeated.")],
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Measure how well public texts cover your own; nothing is sent anywhere."""
    from rich.console import Console

    from sealign.alignment import public_sets
    from sealign.alignment.coverage_report import coverage_rows, coverage_table
    from sealign.encoders import EncoderSettings, load_encoder

    lines, sets = texts_of(texts), public_sets(public)
    settings = settings_of(config, {"silo": "localhost:1", **given})  # no silo is asked
    if settings.encoder is None:
        raise InvalidInputError("Name the local encoder: --encoder or SEALIGN_CLIENT_ENCODER.")
    measured = query_coverage(load_encoder(EncoderSettings.parse(settings.encoder)), lines, sets)
    if as_json:
        typer.echo(json.dumps(coverage_rows(measured), indent=2))
    else:
        Console(width=max(130, Console().width)).print(coverage_table(measured))


def query_coverage(encoder: Encoder, texts: Sequence[str], public: Mapping[str, PublicSet]) -> dict[str, Coverage]:
    """Return the coverage by each public set, by name, and by several together; nothing is sent.

    Args:
        encoder: the client's.
        texts: like those it will ask about.
        public: sets that it could align over.

    Raises:
        InvalidInputError: too few texts, or texts that cannot be embedded.
    """
    from sealign.alignment.coverage_report import measure_coverage
    from sealign.app.progress import progress

    def encode(some: Sequence[str]) -> Embeddings:
        with progress("embedding", len(some)) as advance:
            return encoder.encode(some, progress=advance)

    return measure_coverage(encode, texts, public)
