"""The command line of a client: ``sealign``.

Every option that says which silo and which encoder is also a variable (SEALIGN_ and its name) and a key
of the file given by ``--settings``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sealign.alignment import PublicSet
from sealign.app.console import progress, run, stderr, transfer
from sealign.app.logs import configure_logs
from sealign.ckks import DEFAULT_PRECISION, ProductShape, SecurityTable
from sealign.encoders import EncoderSettings, load_encoder
from sealign.errors import InvalidInputError, StorageError
from sealign.protocol import Placement
from sealign_client.adaptation import Adaptation
from sealign_client.bench import bench_table, run_bench, write_bench
from sealign_client.blocking import Client
from sealign_client.daemon import run_daemon
from sealign_client.encrypted_alignment import Transfer
from sealign_client.forecast_table import forecast_table
from sealign_client.generation import DEFAULT_TOKENS, sampling_of
from sealign_client.packing_table import packing_table
from sealign_client.plan_table import plan_rows, plan_table
from sealign_client.settings import AlignmentMode, ClientSettings, client_settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Use a silo's classifiers privately.")

_SILO = "The silo"
Silo = Annotated[str | None, typer.Option(help="Address and port.", rich_help_panel=_SILO)]
Encoder = Annotated[str | None, typer.Option(help="Local model: family:model?options.", rich_help_panel=_SILO)]
Model = Annotated[
    str | None, typer.Option(help="Local causal model, for generation: a hub name or path.", rich_help_panel=_SILO)
]
TlsCa = Annotated[Path | None, typer.Option(help="Authority of the silo's certificate.", rich_help_panel=_SILO)]
TlsCert = Annotated[Path | None, typer.Option(help="Client certificate, if asked for.", rich_help_panel=_SILO)]
TlsKey = Annotated[Path | None, typer.Option(help="Its private key.", rich_help_panel=_SILO)]
KeyDirectory = Annotated[Path | None, typer.Option(help="Keep secret keys there between runs.", rich_help_panel=_SILO)]
MapDirectory = Annotated[
    Path | None, typer.Option(help="Keep maps learned under encryption there.", rich_help_panel=_SILO)
]
MapPlacement = Annotated[
    Placement | None,
    typer.Option(
        help="Where the map is applied.", show_default="client if it has one for the silo", rich_help_panel=_SILO
    ),
]
TellMap = Annotated[
    bool | None,
    typer.Option(
        "--tell-map/--keep-map",
        help="Tell the silo how a map of your own treats public texts, for heads fitted to it.",
        show_default="keep",
        rich_help_panel=_SILO,
    ),
]
AdaptationFile = Annotated[
    Path | None, typer.Option("--adaptation", help="What `sealign adapt` made of your texts.", rich_help_panel=_SILO)
]
Table = Annotated[
    SecurityTable | None, typer.Option(help="Security table that plans must satisfy.", rich_help_panel=_SILO)
]
SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="TOML file with these options.", rich_help_panel=_SILO)
]


@app.command()
def align(
    public: Annotated[Path, typer.Option(help="Public texts, one a line; the silo must hold the same file.")],
    mode: Annotated[
        AlignmentMode, typer.Option(help="What the silo sees: your embeddings of these texts, or ciphertexts.")
    ] = AlignmentMode.PLAIN,
    few_shot: Annotated[
        str | None, typer.Option(help="Add the texts that the silo releases of this task, if it does.")
    ] = None,
    generation: Annotated[
        str | None, typer.Option(help="Align the states of --model with this generation task, and no embeddings.")
    ] = None,
    silo: Silo = None,
    encoder: Encoder = None,
    model: Model = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    map_directory: MapDirectory = None,
    security_table: Table = None,
    settings: SettingsFile = None,
) -> None:
    """Learn the map from your encoder's space to the silo's, over public texts.

    In plain mode the silo sees your encoder's embeddings of these public texts, and nothing else, and keeps the
    map. In encrypted mode it sees ciphertexts, and the map is kept here, in --map-directory; a run that was
    interrupted goes on when the command is given again. With --few-shot, unlabelled texts that the silo releases of a
    task join the public ones.
    """
    texts = PublicSet.from_file(public)
    loaded = _settings(settings, locals())
    encrypted = mode is AlignmentMode.ENCRYPTED
    if encrypted and loaded.map_directory is None:
        raise InvalidInputError("encrypted alignment keeps the map on this side: say where with --map-directory")
    with Client(loaded) as client, progress("embedding", len(texts)) as advance, transfer("ciphertexts") as move:

        def observe(now: Transfer) -> None:
            if now.note:
                stderr.print(now.note)
            move(now.sent + now.received, now.total)

        if generation is None:
            learned = client.align(texts, advance, mode=mode, few_shot=few_shot, transfer=observe)
        else:
            learned = client.align_generation(texts, generation, advance, mode=mode, transfer=observe)
    measures = [f"explained variance {learned.explained_variance:.4f}"]
    if learned.mean_cosine is not None and learned.linear_cka is not None:
        measures += [f"mean cosine {learned.mean_cosine:.4f}", f"linear CKA {learned.linear_cka:.4f}"]
    estimate = "cross-validated" if encrypted else "held-out"
    rows = "texts" if generation is None else "tokens"
    typer.echo(f"aligned over {learned.rows} {rows}: {estimate} {', '.join(measures)}")


@app.command()
def classify(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, one a line from --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="One text a line; - for standard input.", show_default="-")] = None,
    task: Annotated[str | None, typer.Option(help="The silo's task; not needed if there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all scores.")] = False,
    silo: Silo = None,
    encoder: Encoder = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    key_directory: KeyDirectory = None,
    map_directory: MapDirectory = None,
    placement: MapPlacement = None,
    tell_map: TellMap = None,
    adaptation: AdaptationFile = None,
    security_table: Table = None,
    settings: SettingsFile = None,
) -> None:
    """Classify texts through ciphertexts: label, probability, and whether the text is in distribution."""
    loaded = _settings(settings, locals())
    if texts and file is not None:
        raise InvalidInputError("give texts as arguments or in --file, not both")
    wanted = texts or _lines(file)
    with Client(loaded) as client, progress("classifying", len(wanted)) as advance:
        results = client.classify(wanted, task, advance)
    for result in results:
        if as_json:
            typer.echo(json.dumps(vars(result)))
        else:
            mark = "" if result.in_distribution else "\tout of distribution"
            typer.echo(f"{result.label}\t{result.probability:.4f}{mark}")


@app.command()
def adapt(
    texts: Annotated[Path, typer.Option("--texts", help="Your own texts without labels, one a line, 50 or more.")],
    output: Annotated[Path, typer.Option(help="File to write, for --adaptation.")],
    encoder: Annotated[str, typer.Option(help="Local model: family:model?options.", envvar="SEALIGN_ENCODER")],
    thresholds: Annotated[
        bool,
        typer.Option(
            "--thresholds",
            help="Also set the thresholds of out-of-distribution scores so that 95 % of these texts stay above, 100 "
            "texts or more. Costs one encrypted query a text.",
        ),
    ] = False,
    task: Annotated[str | None, typer.Option(help="For --thresholds; not needed if the silo has one task.")] = None,
    silo: Silo = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    key_directory: KeyDirectory = None,
    map_directory: MapDirectory = None,
    placement: MapPlacement = None,
    tell_map: TellMap = None,
    security_table: Table = None,
    settings: SettingsFile = None,
) -> None:
    """Remember the mean of texts like those you will classify; classify and daemon then take a map's offset out.

    Nothing is sent anywhere but, with --thresholds, the texts' embeddings to the silo, encrypted as for classify. The
    texts should be mixed as queries will be: a mean of one class hides that class.
    """
    lines = _lines(texts)
    if thresholds:
        loaded = _settings(settings, locals()).model_copy(update={"adaptation": None})  # which may be yet to be written
        with Client(loaded) as client, progress("embedding, classifying", 2 * len(lines)) as advance:
            adaptation = client.adapt(lines, advance, thresholds=True, task=task)
    else:
        model = load_encoder(EncoderSettings.parse(encoder))
        with progress("embedding", len(lines)) as advance:
            adaptation = Adaptation.of(model.encode(lines, progress=advance), model.card.fingerprint)
    adaptation.save(output)
    typer.echo(f"wrote {output}, of {len(lines)} texts")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to go on with.")],
    task: Annotated[str | None, typer.Option(help="The silo's generation task; not needed if there is one.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Most new tokens; the silo may allow fewer.", min=1)] = DEFAULT_TOKENS,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Sample among so many of the likeliest tokens.")] = None,
    top_p: Annotated[float, typer.Option(help="Sample among the likeliest tokens that reach this mass.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1, tokens seen are less likely.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a token, with its log-probability.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Generate nothing: say how alike the models are and what a token costs.")
    ] = False,
    public: Annotated[
        Path | None, typer.Option(help="Texts to compare tokenizers over, one a line.", show_default="the prompt")
    ] = None,
    silo: Silo = None,
    model: Model = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    key_directory: KeyDirectory = None,
    map_directory: MapDirectory = None,
    placement: MapPlacement = None,
    security_table: Table = None,
    settings: SettingsFile = None,
) -> None:
    """Go on with a text: your model reads it, the silo's head says, under encryption, what comes next."""
    loaded = _settings(settings, locals())
    sampling = sampling_of(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=tuple(stop or ()),
    )
    with Client(loaded) as client:
        if dry_run:
            texts = (prompt,) if public is None else PublicSet.from_file(public).texts
            _wide_console().print(forecast_table(client.forecast(texts, task)))
            return
        for token in client.generate(prompt, task, max_tokens, sampling):
            typer.echo(json.dumps(vars(token)) if as_json else token.text, nl=as_json)
    if not as_json:
        typer.echo()


@app.command()
def daemon(
    listen: Annotated[
        str, typer.Option(help="Address and port for applications.", envvar="SEALIGN_LISTEN")
    ] = "127.0.0.1:7450",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.", envvar="SEALIGN_LOG_LEVEL")] = "info",
    silo: Silo = None,
    encoder: Encoder = None,
    model: Model = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    key_directory: KeyDirectory = None,
    map_directory: MapDirectory = None,
    placement: MapPlacement = None,
    tell_map: TellMap = None,
    adaptation: AdaptationFile = None,
    security_table: Table = None,
    settings: SettingsFile = None,
) -> None:
    """Keep model, key and connection warm, and serve applications on this machine over gRPC."""
    loaded = _settings(settings, locals())
    configure_logs(log_level)
    asyncio.run(run_daemon(loaded, listen))


@app.command()
def plan(
    dim: Annotated[int, typer.Option(help="Inner dimension d.")],
    classes: Annotated[int, typer.Option(help="Outputs C.")],
    batch: Annotated[int, typer.Option(help="Rows in a request.")] = 1,
    norm: Annotated[float | None, typer.Option(help="Frobenius norm of the weights.", show_default="5·sqrt(C)")] = None,
    logit_range: Annotated[float, typer.Option("--range", help="Largest |logit|.")] = 32.0,
    precision: Annotated[float, typer.Option(help="Largest error of a logit.")] = DEFAULT_PRECISION,
    security_table: Annotated[SecurityTable, typer.Option(help="Largest moduli.")] = SecurityTable.CLASSICAL,
    row_norm: Annotated[float, typer.Option(help="Largest norm of a row.")] = 1.0,
    column_norm: Annotated[float, typer.Option(help="Largest norm of the weights of an output.")] = inf,
    packings: Annotated[
        bool, typer.Option("--packings", help="Compare with packings that need Galois keys, for one row.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The candidates as JSON.")] = False,
) -> None:
    """Show how a product would be packed: the candidates, their bytes and their predicted times."""
    frobenius = norm if norm is not None else 5.0 * classes**0.5
    shape = ProductShape(
        batch, dim, classes, frobenius, logit_range, row_norm=row_norm, precision=precision, column_norm=column_norm
    )
    if packings:
        _wide_console().print(packing_table(replace(shape, rows=1), security_table))
    elif as_json:
        typer.echo(json.dumps(plan_rows(shape, security_table), indent=2))
    else:
        _wide_console().print(plan_table(shape, security_table))


@app.command()
def bench(
    output: Annotated[Path, typer.Option(help="Directory for product.json.")] = Path("bench-output"),
    quick: Annotated[bool, typer.Option(help="d=768, C=4 and the bulk file only.")] = False,
) -> None:
    """Measure the encrypted product against TenSEAL's own matrix product, in one run on this machine."""
    rows = run_bench(quick=quick, progress=stderr.print)
    _wide_console().print(bench_table(rows))
    write_bench(rows, output)
    typer.echo(f"wrote {output / 'product.json'}")


@app.command()
def coverage(
    texts: Annotated[Path, typer.Option("--texts", help="Your own texts, one a line, 50 or more.")],
    public: Annotated[list[Path], typer.Option("--public", help="Public texts, one a line; may be repeated.")],
    encoder: Annotated[str, typer.Option(help="Local model: family:model?options.", envvar="SEALIGN_ENCODER")],
    as_json: Annotated[bool, typer.Option("--json", help="All measures as JSON.")] = False,
) -> None:
    """Measure how well public texts cover your own; nothing is sent anywhere."""
    from sealign.alignment.coverage_report import coverage_rows, coverage_table, read_public_sets
    from sealign_client.coverage import query_coverage

    lines, sets = _lines(texts), read_public_sets(public)
    measured = query_coverage(load_encoder(EncoderSettings.parse(encoder)), lines, sets)
    if as_json:
        typer.echo(json.dumps(coverage_rows(measured), indent=2))
    else:
        _wide_console().print(coverage_table(measured))


@app.command()
def evaluate(
    spec: Annotated[Path, typer.Argument(help="TOML file: encoders, pairs, datasets, public sets, generation.")],
    output: Annotated[Path, typer.Option(help="Directory for report.html, report.md and report.json.")],
    cache: Annotated[
        Path | None, typer.Option(help="Directory that keeps embeddings and states.", show_default="OUTPUT/embeddings")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A part: pair=, dataset=, public=, seed=, method= or generation=NAME, part=classification or "
            "part=generation; may be repeated."
        ),
    ] = None,
) -> None:
    """Measure what alignment costs and which method wins it back, and report it; an interrupted run goes on.

    Both sides' encoders run here: for a silo's operator or a researcher, not for a client of somebody's silo.
    """
    from sealign.lab.evaluation import EvaluationSpec, run_evaluation, write_report  # needs matplotlib and scikit-learn

    command = f"sealign evaluate {spec}" + "".join(f" --only {item}" for item in only or ())
    report = run_evaluation(EvaluationSpec.load(spec), output, cache or output / "embeddings", only or (), command)
    for path in write_report(report, output):
        typer.echo(f"wrote {path}")


def main() -> None:
    """Entry point of ``sealign``."""
    run(app)


def _wide_console() -> Console:
    """Tables of figures are of no use with their columns cut."""
    return Console(width=max(130, Console().width))


def _settings(file: Path | None, options: dict[str, Any]) -> ClientSettings:
    return client_settings(file, **{name: options.get(name) for name in ClientSettings.model_fields})


def _lines(file: Path | None) -> list[str]:
    try:
        raw = sys.stdin.buffer.read() if file is None or str(file) == "-" else file.read_bytes()
        lines = raw.decode("utf-8").splitlines()
    except OSError as error:
        raise StorageError(f"could not read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError("the texts are not UTF-8; convert them") from error
    if not lines:
        raise InvalidInputError("there are no texts to classify")
    return lines
