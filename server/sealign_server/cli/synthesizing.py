"""The command that makes shared texts under differential privacy: synthesize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sealign.app.options import public_texts_option
from sealign_server.cli.arguments import Directory
from sealign_server.cli.ledgers import LedgerUrl, opened_ledger, record


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(synthesize)


def synthesize(
    directory: Directory,
    task: Annotated[str, typer.Option(help="The task's name.")],
    data: Annotated[Path, typer.Option(help="TSV with header label<TAB>text: what the task was trained on.")],
    epsilon: Annotated[float, typer.Option(help="Maximum privacy loss of one training text in this run.")],
    delta: Annotated[float, typer.Option(help="Probability with which the loss may be larger.")] = 1e-5,
    count: Annotated[int, typer.Option(help="Maximum number of texts to share, 128 at most.")] = 128,
    model: Annotated[
        str | None,
        typer.Option(
            help="A local causal language model that writes the texts: a hub name, a path, with ?options. Without one, "
            "public texts are chosen."
        ),
    ] = None,
    public: Annotated[
        str, public_texts_option("Public texts to begin with; they do not join a public set.")
    ] = "general",
    rounds: Annotated[int, typer.Option(help="Rounds of votes, which share epsilon.", min=1, max=10)] = 3,
    tokens: Annotated[int, typer.Option(help="Maximum tokens that the model writes for a text.", min=4)] = 48,
    seed: Annotated[int, typer.Option(help="Random seed of the model's sampling; noise has none.")] = 0,
    ledger: LedgerUrl = None,
) -> None:
    """Share texts that stand for a task's private ones, under differential privacy.

    Needs the extra `private`. They take the place of what the task shares. Each run adds to the privacy loss.
    """
    from sealign.alignment import PublicSet
    from sealign.app.progress import progress
    from sealign.encoders import EncoderSettings
    from sealign.labelled import read_labelled
    from sealign.synthetic import PrivacyLoss
    from sealign_server.store import SiloStore
    from sealign_server.training.synthesis import Synthesis
    from sealign_server.training.synthesis import synthesize as make

    store = SiloStore(directory)
    _, texts = read_labelled(data)
    writing = None if model is None else EncoderSettings.parse(model)
    loss = PrivacyLoss(epsilon, delta)
    wanted = Synthesis(count, loss, rounds, PublicSet.named(public), writing, tokens, seed)
    wanted.require_possible(len(set(texts)))
    store.tasks.description(task)  # refuses a task that there is not
    record(store, "synthesis", "", task=task, epsilon=epsilon, delta=delta, rounds=rounds)
    made = make(store, opened_ledger(store, ledger), task, texts, wanted, progress)
    typer.echo(
        f"task {task}: {len(made.texts)} synthetic texts, epsilon {made.loss.epsilon:.2f} at delta {delta:g} for each "
        f"training text; all runs of this task: epsilon {made.total.epsilon:.2f}"
    )
    typer.echo("a silo served with --share-examples shows them to its clients")
