"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sealign.app.options import public_texts_option

Directory = Annotated[Path, typer.Argument(help="The silo's directory.")]
PublicTexts = Annotated[
    list[str] | None, public_texts_option("Public texts for clients to align over; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TaskName = Annotated[str, typer.Argument(help="The task's name.")]
SpaceName = Annotated[
    str, typer.Option("--space", help='Embedding space: "embeddings", or "generation/TASK" of a generation task.')
]
