"""The command line of a silo: ``sealign-server``.

Every option of ``serve`` is also a variable, SEALIGN_ and its name, and a key of the silo's silo.toml.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from sealign.alignment import PublicSet
from sealign.app.console import progress, run
from sealign.app.logs import configure_logs
from sealign.app.tls import load_authorities, load_identity
from sealign.ckks import SecurityTable
from sealign.encoders import EncoderSettings
from sealign.errors import InvalidInputError, UnavailableError
from sealign.labelled import read_labelled
from sealign_server.certificates import write_trial_certificates
from sealign_server.generation_store import GenerationStore
from sealign_server.releases import ReleaseLedger
from sealign_server.serve import serve as run_server
from sealign_server.settings import serve_settings
from sealign_server.store import SiloStore

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run a silo.")

Directory = Annotated[Path, typer.Argument(help="The silo's directory.")]
PublicFiles = Annotated[
    list[Path] | None, typer.Option("--public", help="Public texts, one a line, for clients to align over.")
]


@app.command()
def init(
    directory: Directory,
    encoder: Annotated[str, typer.Option(help="The silo's own model: family:model?options, or a hub name.")],
    name: Annotated[str, typer.Option(help="The silo's name, shown to clients.")] = "silo",
    public: PublicFiles = None,
) -> None:
    """Create a silo, and embed public texts that clients can align over.

    For a silo that exists, with the same encoder, only the public texts are added.
    """
    from sealign_server.training import add_public_set, create_silo

    sets = [(path.stem, PublicSet.from_file(path)) for path in public or []]
    if (directory / "silo.json").exists() and sets:
        store = SiloStore(directory)
        if store.document.encoder != EncoderSettings.parse(encoder):
            raise InvalidInputError(f"{directory} is a silo with another encoder; choose another directory")
    else:
        store = create_silo(directory, name, EncoderSettings.parse(encoder))
    for label, texts in sets:
        with progress(f"embedding {label}", len(texts)) as advance:
            card = add_public_set(store, label, texts, advance)
        typer.echo(f"public set {card.name}: {card.rows} texts, digest {card.digest}")
    typer.echo(f"silo {store.document.name} in {directory}, encoder {store.document.encoder_card.name}")


@app.command()
def train(
    directory: Directory,
    task: Annotated[str, typer.Option(help="The task's name.")],
    data: Annotated[Path, typer.Option(help="TSV with header label<TAB>text.")],
    description: Annotated[str, typer.Option(help="What the task is about, shown to clients.")] = "",
    head: Annotated[
        Path | None,
        typer.Option(help="Import this linear head (safetensors) instead; the data then only calibrate it."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn: held-out rows, texts to release.")] = 0,
    release: Annotated[
        int,
        typer.Option(help="Keep so many of the texts, without labels, for clients; see serve --release-texts.", min=0),
    ] = 0,
) -> None:
    """Train a task's head on labelled texts, or import one."""
    from sealign_server.training import import_task, train_task

    store = SiloStore(directory)
    labels, texts = read_labelled(data)
    with progress("embedding", len(texts)) as advance:
        if head is None:
            trained = train_task(store, task, description, labels, texts, advance, seed=seed, release=release)
        else:
            trained = import_task(store, task, description, head, labels, texts, advance, seed=seed, release=release)
    typer.echo(
        f"task {task}: {len(trained.head.labels)} labels, held-out accuracy {trained.held_out_accuracy:.4f} "
        f"({trained.held_out_rows} texts), calibration error {trained.calibration_error_after:.4f}"
    )
    if release:
        typer.echo(f"a silo served with --release-texts shows {release} of these texts to its clients")


@app.command()
def generation(
    directory: Directory,
    task: Annotated[str, typer.Option(help="The task's name.")],
    model: Annotated[str, typer.Option(help="The silo's causal model: a hub name, a path, with ?options.")],
    description: Annotated[str, typer.Option(help="What it writes, shown to clients.")] = "",
    public: PublicFiles = None,
) -> None:
    """Keep a causal model's head as a generation task, and its states over public texts.

    For a task that exists, with the same model, only the public texts are added.
    """
    from sealign_server.generation_training import add_public_states, keep_generation, unservable_over

    sets = [(path.stem, PublicSet.from_file(path)) for path in public or []]
    loaded, states = keep_generation(SiloStore(directory), task, EncoderSettings.parse(model), description)
    for label, texts in sets:
        with progress(f"reading {label}", len(texts)) as advance:
            card = add_public_states(states, loaded, label, texts, advance)
        typer.echo(f"public set {card.name}: {card.rows} tokens, digest {card.digest}")
        if (unservable := unservable_over(SiloStore(directory), task, card.digest)) is not None:
            typer.echo(f"warning: {unservable}", err=True)
    typer.echo(f"generation task {task}: {loaded.card.name}, vocabulary {loaded.card.vocabulary}")


@app.command()
def refine(
    directory: Directory,
    task: Annotated[str, typer.Option(help="The generation task.")],
    model: Annotated[str, typer.Option(help="Fingerprint of the client's model, or its beginning.")] = "",
    epochs: Annotated[int, typer.Option(help="Passes over the public tokens.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the order of tokens.")] = 0,
) -> None:
    """Refine the map of a generation task by what the head predicts; a silo that serves takes it up by itself."""
    from sealign_server.generation_training import refine_map

    refined = refine_map(SiloStore(directory), task, model, epochs=epochs, seed=seed)
    before, after = refined.divergences[0], refined.divergences[refined.best]
    typer.echo(f"divergence on held-out tokens {before:.4f} before, {after:.4f} after epoch {refined.best}")


@app.command()
def serve(
    directory: Directory,
    listen: Annotated[str | None, typer.Option(help="Address and port.", show_default="127.0.0.1:7443")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM (required).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM (required).")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Require client certificates from this authority.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one a core.", show_default="1")] = None,
    precision: Annotated[float | None, typer.Option(help="Error of a logit.", show_default="1/256")] = None,
    security_table: Annotated[
        SecurityTable | None, typer.Option(help="Largest moduli to allow.", show_default="classical")
    ] = None,
    max_keys: Annotated[int | None, typer.Option(help="Public keys to hold.", show_default="1024")] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(help="Products under way at once; more are refused.", show_default="64")
    ] = None,
    max_releases: Annotated[
        int | None,
        typer.Option(help="Cross-covariances for each public set, encoder and client.", show_default="1"),
    ] = None,
    alignment_seconds: Annotated[
        float | None, typer.Option(help="How long an alignment waits for its client.", show_default="120")
    ] = None,
    product_hours: Annotated[
        float | None, typer.Option(help="How long a cross-covariance waits to be fetched.", show_default="24")
    ] = None,
    release_texts: Annotated[
        bool | None,
        typer.Option(
            "--release-texts/--no-release-texts",
            help="Show clients the texts that train --release kept, for few-shot alignment.",
            show_default="no",
        ),
    ] = None,
    fit_heads: Annotated[
        bool | None,
        typer.Option(
            "--fit-heads/--own-heads",
            help="Fit a head to each map where that is better on held-out texts, or serve the trained ones.",
            show_default="fit",
        ),
    ] = None,
    ood_directions: Annotated[
        int | None, typer.Option(help="Outputs for the Mahalanobis score of fitted heads.", show_default="8")
    ] = None,
    max_maps: Annotated[
        int | None, typer.Option(help="Told maps to remember; the oldest are forgotten.", show_default="64")
    ] = None,
    generation_precision: Annotated[
        float | None, typer.Option(help="Error of a token's logit.", show_default="1/16")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most new tokens of one generation.", show_default="1024")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", show_default="info")] = None,
) -> None:
    """Serve the silo over TLS until SIGTERM."""
    flags = {
        "listen": listen,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "workers": workers,
        "precision": precision,
        "security_table": security_table,
        "max_keys": max_keys,
        "max_concurrent": max_concurrent,
        "max_releases": max_releases,
        "alignment_seconds": alignment_seconds,
        "product_hours": product_hours,
        "release_texts": release_texts,
        "fit_heads": fit_heads,
        "ood_directions": ood_directions,
        "max_maps": max_maps,
        "generation_precision": generation_precision,
        "max_tokens": max_tokens,
        "log_level": log_level,
    }
    settings = serve_settings(directory, flags)
    configure_logs(settings.log_level)
    run_server(directory, settings)


@app.command()
def coverage(
    directory: Directory,
    data: Annotated[Path, typer.Option(help="TSV with header label<TAB>text: what the task is trained on.")],
    public: Annotated[list[Path], typer.Option("--public", help="Public texts, one a line; may be repeated.")],
    as_json: Annotated[bool, typer.Option("--json", help="All measures as JSON.")] = False,
) -> None:
    """Measure how well public texts cover a task, before anything is exchanged."""
    from sealign.alignment.coverage_report import coverage_rows, coverage_table, read_public_sets
    from sealign_server.coverage import task_coverage

    _, texts = read_labelled(data)
    measured = task_coverage(SiloStore(directory), texts, read_public_sets(public))
    if as_json:
        typer.echo(json.dumps(coverage_rows(measured), indent=2))
    else:
        Console(width=max(130, Console().width)).print(coverage_table(measured))


@app.command()
def info(directory: Directory) -> None:
    """Show a silo's encoder, tasks, public sets, maps and releases."""
    store = SiloStore(directory)
    card = store.document.encoder_card
    console = Console()
    console.print(
        f"silo {store.document.name}: encoder {card.name}, {card.dimension} dimensions, {card.fingerprint[:12]}"
    )
    tasks = Table("task", "labels", "held-out accuracy", "own temperature", "texts to release", title="Tasks")
    for name in store.task_names():
        _, head = store.load_task(name)
        released = store.load_released(name)
        kept = "none" if released is None else str(len(released.texts))
        measures = (f"{head.held_out_accuracy:.4f}", f"{head.temperature:.3f}")
        tasks.add_row(name, str(len(head.head.labels)), *measures, kept)
    sets = Table("public set", "texts", "digest", title="Public sets")
    for public in store.public_sets():
        sets.add_row(public.name, str(public.rows), public.digest)
    maps = Table(
        "client encoder", "texts", "family", "explained variance", "mean cosine", "CKA", "learned", title="Maps"
    )
    for fingerprint in store.map_fingerprints():
        learned = store.load_map(fingerprint)
        q = learned.quality
        quality = (_measure(q.explained_variance), _measure(q.mean_cosine), _measure(q.linear_cka))
        maps.add_row(fingerprint[:12], str(q.rows), q.family, *quality, learned.created)
    releases = Table(
        "public set", "client", "client encoder", "dimensions", "texts", "when", title="Released cross-covariances"
    )
    for release in ReleaseLedger(store.releases_path).releases():
        numbers = (str(release.dimension), str(release.rows), release.created)
        releases.add_row(release.public_set[:12], release.client, release.encoder[:12], *numbers)
    generating = Table(
        "task", "model", "vocabulary", "public tokens", "maps, explained variance", title="Generation tasks"
    )
    heads = GenerationStore(store)
    for name in heads.names():
        states, (document, _) = heads.states(name), heads.load(name)
        tokens = sum(public.rows for public in states.public_sets())
        qualities = {known[:12]: states.load_map(known).quality for known in states.map_fingerprints()}
        maps_of = [f"{known} ({q.family}, {_measure(q.explained_variance)})" for known, q in qualities.items()]
        generating.add_row(
            name, states.document.encoder_card.name, str(document.vocabulary), str(tokens), ", ".join(maps_of) or "none"
        )
    for table in (tasks, sets, maps, releases, generating):
        console.print(table)


@app.command()
def health(
    address: Annotated[str, typer.Option(envvar="SEALIGN_ADDRESS", help="Address and port of the silo.")],
    tls_ca: Annotated[Path, typer.Option(envvar="SEALIGN_TLS_CA", help="Authority of the silo's certificate.")],
    tls_cert: Annotated[Path | None, typer.Option(envvar="SEALIGN_HEALTH_TLS_CERT", help="Client certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(envvar="SEALIGN_HEALTH_TLS_KEY", help="Its private key.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 5.0,
) -> None:
    """Ask a silo whether it serves, by the standard health protocol."""
    identity = load_identity(tls_cert, tls_key) if tls_cert and tls_key else None
    credentials = grpc.ssl_channel_credentials(
        load_authorities(tls_ca), identity.key if identity else None, identity.certificate if identity else None
    )
    with grpc.secure_channel(address, credentials) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise UnavailableError(f"the silo at {address} does not answer: {error.details()}") from error
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise UnavailableError(f"the silo at {address} is up but not serving")
    typer.echo("serving")


@app.command()
def certificates(
    directory: Annotated[Path, typer.Argument(help="Where to write them.")],
    host: Annotated[list[str], typer.Option(help="Name or address that clients use for the silo.")],
) -> None:
    """Write certificates for trying Sealign out (an authority, a silo and a client; 30 days)."""
    write_trial_certificates(directory, host)
    typer.echo(f"wrote ca.pem, silo.pem, silo.key, client.pem and client.key to {directory}")


def main() -> None:
    """Entry point of ``sealign-server``."""
    run(app)


def _measure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
