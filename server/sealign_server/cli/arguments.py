"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Directory = Annotated[Path, typer.Argument(help="The silo's directory.")]
PublicFiles = Annotated[
    list[Path] | None, typer.Option("--public", help="Public texts, one per line, for clients to align over.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TaskName = Annotated[str, typer.Argument(help="The task's name.")]
SpaceName = Annotated[
    str, typer.Option("--space", help='Embedding space: "embeddings", or "generation/TASK" of a generation task.')
]
