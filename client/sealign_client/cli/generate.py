"""``sealign generate``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import exp
from statistics import fmean
from typing import Annotated, Any

import typer

from sealign.app.options import public_texts_option, with_options
from sealign.app.terminal import print_table, visible
from sealign_client.cli.common import Config, settings_of, single_command
from sealign_client.results import Forecast, GeneratedToken
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

app = single_command()


@app.command()
@with_options(ClientSettings, exclude=("encoder", "recentring", *DAEMON_SETTINGS))
def generate(
    given: dict[str, Any],
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    task: Annotated[str | None, typer.Option(help="The silo's generation task; not needed if there is one.")] = None,
    max_tokens: Annotated[
        int, typer.Option(help="Maximum number of new tokens; the silo may impose a lower limit.", min=1)
    ] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Sample among this number of likeliest tokens.")] = None,
    top_p: Annotated[float, typer.Option(help="Sample among the likeliest tokens that reach this mass.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1, tokens seen are less likely.")] = 1.0,
    no_repeat_run: Annotated[
        int, typer.Option(help="No run of this number of tokens is written twice; 0 allows all.", min=0)
    ] = 4,
    seed: Annotated[int, typer.Option(help="Random seed for sampling.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
    mixture: Annotated[
        bool,
        typer.Option(
            "--mixture", help="Mix in your own model's predictions, with the weight that `align` fitted; see --json."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one object per token, or the forecast.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Generate nothing: report how alike the models are and a token's cost.")
    ] = False,
    public: Annotated[
        str | None, public_texts_option("--dry-run: texts to compare tokenizers over, by default the prompt.")
    ] = None,
    config: Config = None,
) -> None:
    """Generate text. Your model encodes the prompt; the silo's head scores the next token under encryption."""
    from sealign.alignment import PublicSet
    from sealign_client.blocking import Client
    from sealign_client.generate import sampling_of

    settings = settings_of(config, given)
    sampling = sampling_of(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        no_repeat_run=no_repeat_run,
        seed=seed,
        stop=tuple(stop or ()),
    )
    with Client(settings) as client:
        if dry_run:
            texts = (prompt,) if public is None else PublicSet.named(public).texts
            found = client.forecast(texts, task)
            if as_json:
                typer.echo(json.dumps(asdict(found)))
            else:
                print_table(("forecast", ""), _rows(found))
            return
        tokens = []
        for token in client.generate(prompt, task, max_tokens, sampling, mixture=mixture):
            typer.echo(json.dumps(asdict(token)) if as_json else _shown(token.text), nl=as_json)
            tokens.append(token)
    if not as_json:
        typer.echo()
    if mixture and not as_json:
        typer.echo(_mixture(tokens), err=True)


def _mixture(tokens: Sequence[GeneratedToken]) -> str:
    """Return how likely a text is by the mixture that it was sampled from, and by the silo alone."""
    silo = [token.silo_log_probability for token in tokens if token.silo_log_probability is not None]
    perplexities = (exp(-fmean(values)) for values in ([token.log_probability for token in tokens], silo))
    return "mixture: perplexity of this text {:.1f}, by the silo alone {:.1f}".format(*perplexities)


def _shown(text: str) -> str:
    """Return generated text with its line breaks, and everything else that moves a cursor made visible."""
    return "\n".join(map(visible, text.split("\n")))


def _rows(forecast: Forecast) -> list[tuple[str, str]]:
    likeness, cost = forecast.compatibility, forecast.cost
    variance, divergence = forecast.explained_variance, forecast.divergence
    rows = [
        ("vocabularies, Jaccard index", f"{likeness.jaccard:.4f}"),
        (f"tokens cut exactly alike, of {likeness.tokens}", f"{likeness.exact_match:.4f}"),
        ("tokens that end alike", f"{likeness.boundary_match:.4f}"),
        ("explained variance of hidden states", "no map yet" if variance is None else f"{variance:.4f}"),
        ("parameters", cost.parameters),
        ("maximum error of a logit", f"{cost.precision:.4f}"),
        ("KB per token, up and down", f"{cost.sent / 1e3:.0f} + {cost.received / 1e3:.0f}"),
        ("ms per token, ciphertexts and a link of 100 Mbit/s", f"{cost.seconds * 1e3:.0f}"),
        ("ms per token, your model", f"{forecast.model_seconds * 1e3:.0f}"),
    ]
    if divergence is not None:
        rows.insert(4, ("divergence of predictions, refined map, nats per token", f"{divergence:.4f}"))
    return rows
