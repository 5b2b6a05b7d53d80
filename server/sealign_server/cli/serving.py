"""Commands that serve a silo: serve, health, certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sealign.app.options import with_options
from sealign_server.cli.arguments import Directory
from sealign_server.settings import ServeSettings, serve_settings


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (serve, reload, health, certificates):
        app.command()(command)


@with_options(ServeSettings)
def serve(directory: Directory, given: dict[str, Any]) -> None:
    """Serve the silo over TLS until SIGTERM.

    Every option is also a variable, and a key of the silo's silo.toml. Options come first, then variables.
    """
    from sealign.app.logs import configure_logs
    from sealign_server.runtime.serve import serve as run_server

    settings = serve_settings(directory, given)
    configure_logs(settings.log_level)
    run_server(directory, settings)


def reload(directory: Directory) -> None:
    """Ask the process that serves the silo on this machine to look for new certificates, policy and identities now.

    It looks for them by itself twice a second. What it cannot use is in its log, and what was in use stays.
    """
    from sealign_server.runtime.reload import ask_to_reload
    from sealign_server.store import SiloStore

    number = ask_to_reload(SiloStore(directory).serving_path)
    typer.echo(f"process {number} reloads; see its log")


def health(
    address: Annotated[str, typer.Option(envvar="SEALIGN_HEALTH_ADDRESS", help="Address and port of the silo.")],
    tls_ca: Annotated[Path, typer.Option(envvar="SEALIGN_HEALTH_TLS_CA", help="Authority of the silo's certificate.")],
    tls_cert: Annotated[Path | None, typer.Option(envvar="SEALIGN_HEALTH_TLS_CERT", help="Client certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(envvar="SEALIGN_HEALTH_TLS_KEY", help="Its private key.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 5.0,
    task: Annotated[
        str | None, typer.Option(help="Ask about this task; generation/TASK for a generation task.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Ask only whether the process serves.")] = False,
) -> None:
    """Ask a silo, by the standard health protocol, whether it is ready: whether a task can be served."""
    from sealign.app.addresses import parse_address
    from sealign_server.runtime.health import require_serving, service_of

    service = service_of(task, live=live)
    require_serving(str(parse_address(address)), tls_ca, tls_cert, tls_key, timeout, service)
    typer.echo("serving")


def certificates(
    directory: Annotated[Path, typer.Argument(help="Where to write them.")],
    host: Annotated[list[str], typer.Option(help="Name or address that clients use for the silo.")],
    client: Annotated[
        list[str] | None, typer.Option(help="Name of a client, and of its files. By default one client, client.")
    ] = None,
) -> None:
    """Write certificates for trying Sealign out: an authority, a silo and its clients. They are valid for 30 days."""
    from sealign_server.runtime.certificates import CLIENT, write_trial_certificates

    clients = client or [CLIENT]
    write_trial_certificates(directory, host, clients)
    names = "".join(f", {name}.pem, {name}.key" for name in clients)
    typer.echo(f"wrote ca.pem, silo.pem, silo.key{names} to {directory}")
