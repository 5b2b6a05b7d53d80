"""Commands that make a silo: init, train, refine, coverage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sealign.app.options import public_texts_option
from sealign_server.cli.arguments import AsJson, Directory, PublicTexts


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (init, train, refine, coverage):
        app.command()(command)


def init(
    directory: Directory,
    encoder: Annotated[str, typer.Option(help="The silo's own model: family:model?options, or a hub name.")],
    name: Annotated[str, typer.Option(help="The silo's name, shown to clients.")] = "silo",
    public: PublicTexts = None,
) -> None:
    """Create a silo, and embed public texts that clients can align over.

    For a silo that exists, with the same encoder, only the public texts are added.
    """
    from sealign.alignment import public_sets
    from sealign.app.progress import progress
    from sealign.encoders import EncoderSettings
    from sealign.errors import InvalidInputError
    from sealign_server.store import SiloStore
    from sealign_server.training.embedding import add_public_set, create_silo

    sets = public_sets(public or ())
    if (directory / "silo.json").exists() and sets:
        store = SiloStore(directory)
        if store.document.encoder != EncoderSettings.parse(encoder):
            raise InvalidInputError(f"{directory} is a silo with another encoder; choose another directory")
    else:
        store = create_silo(directory, name, EncoderSettings.parse(encoder))
    for label, texts in sets.items():
        with progress(f"embedding {label}", len(texts)) as advance:
            card = add_public_set(store, label, texts, advance)
        typer.echo(f"public set {card.name}: {card.rows} texts, digest {card.digest}")
    typer.echo(f"silo {store.document.name} in {directory}, encoder {store.document.encoder_card.name}")


def train(
    directory: Directory,
    task: Annotated[str, typer.Option(help="The task's name.")],
    data: Annotated[Path, typer.Option(help="TSV with header label<TAB>text.")],
    description: Annotated[
        str | None, typer.Option(help="What the task is about, shown to clients; by default as before.")
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            help="Import this linear head (safetensors) instead; the data then only calibrate it. Its labels come from "
            "the file's metadata: `labels`, a JSON list in the order of the outputs."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for what is drawn: held-out rows, shared examples.")] = 0,
    share: Annotated[
        int,
        typer.Option(
            help="Texts, without labels, to keep for clients; see serve --share-examples. 128 at most.", min=0
        ),
    ] = 0,
    outliers: Annotated[
        Path | None,
        typer.Option(
            help="General texts that are not of the task, one per line, to tell outliers by. Default: 344 English "
            "sentences that ship with Sealign."
        ),
    ] = None,
) -> None:
    """Train a task's head on labelled texts, or import one. Clients are served the new version at once."""
    from sealign.alignment import PublicSet
    from sealign.app.progress import progress
    from sealign.labelled import read_labelled
    from sealign_server.store import SiloStore
    from sealign_server.training.tasks import TrainingData, import_task, rare_classes, rare_named, train_task

    store = SiloStore(directory)
    labels, texts = read_labelled(data)
    others = None if outliers is None else PublicSet.from_file(outliers).texts
    chosen = TrainingData(labels, texts, seed, share, others)
    with progress("embedding", len(texts)) as advance:
        if head is None:
            trained = train_task(store, task, description, chosen, advance, progress)
        else:
            trained = import_task(store, task, description, head, chosen, advance, progress)
    typer.echo(
        f"task {task}: {len(trained.head.labels)} labels, held-out accuracy {trained.held_out_accuracy:.4f} "
        f"({trained.held_out_rows} texts), calibration error {trained.calibration_error_after:.4f}"
    )
    if rare := rare_classes(trained.head.labels, labels):
        typer.echo(
            f"warning: {len(rare)} classes have fewer than two texts in {data}: {rare_named(rare)}. Clients are served "
            "the head as it is, and none that is fitted to their maps. Give two texts of each class.",
            err=True,
        )
    if share:
        typer.echo(f"a silo served with --share-examples shows {share} of these texts to its clients")


def refine(
    directory: Directory,
    task: Annotated[str, typer.Option(help="The generation task.")],
    start: Annotated[
        str, typer.Option("--map", help="Beginning of the map's id, or of the fingerprint of the client's model.")
    ] = "",
    epochs: Annotated[int, typer.Option(help="Maximum passes over the public tokens.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Random seed for the order of tokens.")] = 0,
) -> None:
    """Refine the map of a generation task by what the head predicts; the refined map is the client's newest.

    It stops early after three passes that predict held-out tokens no better.
    """
    from sealign.app.progress import progress
    from sealign_server.store import SiloStore
    from sealign_server.training.generation import refine_map, tokens_refined

    store = SiloStore(directory)
    with progress("refining", epochs * tokens_refined(store, task, start)) as advance:
        refined, record = refine_map(store, task, start, epochs=epochs, seed=seed, progress=advance)
    before, after = refined.divergences[0], refined.divergences[refined.best]
    typer.echo(
        f"divergence on held-out tokens {before:.4f} before, {after:.4f} after epoch {refined.best}; map "
        f"{record.card.id}"
    )


def coverage(
    directory: Directory,
    data: Annotated[Path, typer.Option(help="TSV with header label<TAB>text: what the task is trained on.")],
    public: Annotated[list[str], public_texts_option("Public texts; may be repeated.")],
    as_json: AsJson = False,
) -> None:
    """Measure how well public texts cover a task, before anything is exchanged."""
    from rich.console import Console

    from sealign.alignment import public_sets
    from sealign.alignment.coverage_report import coverage_rows, coverage_table
    from sealign.labelled import read_labelled
    from sealign_server.store import SiloStore
    from sealign_server.training.coverage import task_coverage

    _, texts = read_labelled(data)
    measured = task_coverage(SiloStore(directory), texts, public_sets(public))
    if as_json:
        typer.echo(json.dumps(coverage_rows(measured), indent=2))
    else:
        Console(width=max(130, Console().width)).print(coverage_table(measured))
