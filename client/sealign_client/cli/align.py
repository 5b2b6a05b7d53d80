"""``sealign align``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealign.app.options import public_texts_option, with_options
from sealign.app.terminal import stderr, visible
from sealign.errors import InvalidInputError, SealignError
from sealign.protocol import EMBEDDINGS, MapCard, generation_space
from sealign_client.cli.common import AsJson, Config, settings_of, single_command
from sealign_client.options import AlignmentMode
from sealign_client.results import Transfer
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

if TYPE_CHECKING:
    from sealign_client.blocking import Client

app = single_command()

_FAR = 0.1
"""Difference between the silo's own accuracy and the promised one that is worth a warning."""


@app.command()
@with_options(ClientSettings, exclude=("recentring", "placement", *DAEMON_SETTINGS))
def align(
    given: dict[str, Any],
    public: Annotated[str, public_texts_option("Public texts; the silo must hold the same.")],
    mode: Annotated[
        AlignmentMode, typer.Option(help="What the silo sees: your embeddings of these texts, or ciphertexts.")
    ] = AlignmentMode.PLAIN,
    generation: Annotated[
        str | None, typer.Option(help="Align the token states of --model with this generation task.")
    ] = None,
    shared_examples: Annotated[
        str | None, typer.Option(help="Add the label names of this task, and the examples that the silo shares of it.")
    ] = None,
    accept_examples: Annotated[
        bool, typer.Option("--accept-examples", help="Embed shared examples without asking.")
    ] = False,
    mixture_positions: Annotated[
        int,
        typer.Option(
            min=0,
            help="--generation: fit the weight of your own model's predictions for `generate --mixture` on this number "
            "of public positions, one query each. 0 fits none.",
        ),
    ] = 0,
    accept_poor_map: Annotated[
        bool, typer.Option("--accept-poor-map", help="Use a map that predicts no better than chance.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Learn the map from your encoder's space to the silo's, over public texts.

    In plain mode the silo sees your encoder's embeddings of these public texts, and nothing else, and retains the map.
    In encrypted mode it sees ciphertexts, and the map stays here, in --map-directory. An interrupted run resumes when
    the command is given again.
    """
    from sealign.alignment import PublicSet
    from sealign.app.progress import progress, transfer
    from sealign_client.blocking import Client

    texts, settings = PublicSet.named(public), settings_of(config, given)
    if mixture_positions and generation is None:
        raise InvalidInputError("A mixture belongs to a generation task. Name it: --generation.")
    if generation is not None and settings.model is None:
        raise InvalidInputError("Name the local causal language model: --model or SEALIGN_CLIENT_MODEL.")
    space = EMBEDDINGS if generation is None else generation_space(generation)
    with Client(settings) as client:
        with progress("embedding", len(texts)) as advance, transfer("ciphertexts") as move:

            def observe(now: Transfer) -> None:
                if now.note:
                    stderr().print(visible(now.note), markup=False)
                move(now.sent + now.received, now.total)

            learned = client.align(
                texts,
                space,
                mode=mode,
                register=settings.register_maps,
                shared_examples=shared_examples,
                accept_examples=(lambda _: True) if accept_examples else _ask,
                mixture_positions=mixture_positions,
                accept_poor_map=accept_poor_map,
                progress=advance,
                transfer=observe,
            )
        if as_json:
            typer.echo(json.dumps({"space": space, "mode": mode.value, **asdict(learned)}))
        else:
            _report(learned, mode, "texts" if generation is None else "tokens")
        if generation is None:
            _warn_of_low_accuracy(client)
        elif mixture_positions and not as_json:
            _report_mixture(client, generation)


def _report(learned: MapCard, mode: AlignmentMode, rows: str) -> None:
    measures = [f"explained variance {learned.explained_variance:.4f}"]
    if learned.mean_cosine is not None and learned.linear_cka is not None:
        measures += [f"mean cosine {learned.mean_cosine:.4f}", f"linear CKA {learned.linear_cka:.4f}"]
    estimate = "cross-validated" if mode is AlignmentMode.ENCRYPTED else "held-out"
    typer.echo(f"aligned over {learned.rows} {rows}: {estimate} {', '.join(measures)}")
    typer.echo(f"map {learned.id}")


def _report_mixture(client: Client, task: str) -> None:
    for described in client.describe_generation():
        found = described.mixture
        if described.card.name == task and found is not None:
            typer.echo(
                f"mixture fitted on {found.positions} positions: weight of your own model {found.weight:.3f}; "
                f"perplexity {found.perplexity:.1f}, silo alone {found.silo_perplexity:.1f}, your model alone "
                f"{found.own_perplexity:.1f}"
            )


def _ask(examples: Sequence[str]) -> bool:
    """Show the examples, and ask whether they may be embedded, if somebody is there to answer."""
    for text in examples:
        stderr().print(visible(text), markup=False, highlight=False)
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    return typer.confirm(f"The silo chose these {len(examples)} texts. Embed them for it?", err=True)


def _warn_of_low_accuracy(client: Client) -> None:
    with suppress(SealignError):  # the alignment has succeeded
        for task in client.describe().tasks:
            promised = task.mapped_accuracy
            if promised is not None and promised < task.held_out_accuracy - _FAR:
                typer.echo(
                    f"warning: task {visible(task.name)} promises accuracy {promised:.3f} behind this map, far below "
                    f"the silo's own {task.held_out_accuracy:.3f}; another public set or encoder may do better",
                    err=True,
                )
