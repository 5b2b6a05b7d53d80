"""Commands on generation tasks: add, list, show, remove."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sealign_server.cli.arguments import AsJson, Directory, PublicTexts, TaskName
from sealign_server.cli.info import print_rows

generation = typer.Typer(help="Generation tasks: language-model heads.", no_args_is_help=True, rich_markup_mode=None)


def add_to(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(generation, name="generation")


@generation.command("add")
def add(
    directory: Directory,
    task: Annotated[str, typer.Option(help="The task's name.")],
    model: Annotated[str, typer.Option(help="The silo's causal model: a hub name, a path, with ?options.")],
    description: Annotated[str, typer.Option(help="What it writes, shown to clients.")] = "",
    public: PublicTexts = None,
) -> None:
    """Keep a causal model's head as a generation task, and its states over public texts.

    For a task that exists, with the same model, only the public texts are added.
    """
    from sealign.alignment import public_sets
    from sealign.app.progress import progress
    from sealign.encoders import EncoderSettings
    from sealign_server.store import SiloStore
    from sealign_server.training.generation import add_public_states, keep_generation, unservable_over

    sets = public_sets(public or ())
    store = SiloStore(directory)
    loaded = keep_generation(store, task, EncoderSettings.parse(model), description)
    space = store.generation.space(task)
    for label, texts in sets.items():
        with progress(f"reading {label}", len(texts)) as advance:
            card = add_public_states(space, loaded, label, texts, advance)
        typer.echo(f"public set {card.name}: {card.rows} tokens, digest {card.digest}")
        if (unservable := unservable_over(store, task, card.digest)) is not None:
            typer.echo(f"warning: {unservable}", err=True)
    typer.echo(f"generation task {task}: {loaded.card.name}, vocabulary {loaded.card.vocabulary}")


@generation.command("list")
def list_generation(directory: Directory, as_json: AsJson = False) -> None:
    """List the generation tasks."""
    from sealign_server.store import SiloStore

    store = SiloStore(directory).generation
    documents = [(name, store.document(name)) for name in store.names()]
    rows = [
        {"name": name, "model": d.encoder_card.name, "vocabulary": d.vocabulary, "description": d.description}
        for name, d in documents
    ]
    print_rows(rows, as_json)


@generation.command("show")
def show_generation(directory: Directory, task: TaskName) -> None:
    """Show a generation task as JSON: model, vocabulary, tokenizer."""
    from sealign_server.store import SiloStore

    document = SiloStore(directory).generation.document(task)
    typer.echo(json.dumps({"name": task, **document.model_dump()}, indent=2))


@generation.command("remove")
def remove_generation(directory: Directory, task: TaskName) -> None:
    """Remove a generation task with its maps and public sets; it stops being served at once."""
    from sealign_server.store import SiloStore

    SiloStore(directory).generation.remove(task)
    typer.echo(f"removed generation task {task}")
