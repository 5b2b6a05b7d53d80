"""The daemon's process: it listens, says whether it is alive and ready, and ends in good order."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sealign.app.addresses import Address, parse_address
from sealign.app.frame import Frame, FrameLimits, Layer
from sealign.app.reflection import enable_reflection
from sealign.errors import SealignError, UnavailableError
from sealign.protocol.v1 import daemon_pb2 as pb
from sealign.protocol.v1.daemon_pb2_grpc import add_DaemonServicer_to_server
from sealign_client.client import AsyncClient
from sealign_client.daemon.private_socket import private_socket
from sealign_client.daemon.service import DaemonService
from sealign_client.daemon.token import TokenLayer, default_token_file, read_token
from sealign_client.local.directory import private
from sealign_client.settings import ClientSettings

if TYPE_CHECKING:
    from sealign_client.daemon.http import HttpServer

_log = structlog.get_logger()

SERVICE = pb.DESCRIPTOR.services_by_name["Daemon"].full_name
"""Health of this name is readiness: the silo answers. Health of the empty name is liveness."""

_OPTIONS = (
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.max_send_message_length", 32 << 20),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)
_PROBE_SECONDS = 5.0
_GRACE_SECONDS = 5.0


async def run_daemon(settings: ClientSettings) -> None:
    """Serve applications until SIGTERM or SIGINT.

    Raises:
        UnavailableError: the address cannot be listened on.
        InvalidInputError, StorageError: settings or a token file that cannot work.
    """
    address = parse_address(settings.listen)
    token_file = settings.token_file or default_token_file()
    layers: list[Layer] = [] if address.path else [TokenLayer(read_token(token_file))]
    async with AsyncClient(settings) as client:
        frame = Frame([SERVICE], layers, FrameLimits())
        server = grpc.aio.server(interceptors=[frame], options=_OPTIONS)
        add_DaemonServicer_to_server(DaemonService(client), server)
        status = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        enable_reflection(server, (SERVICE, health.SERVICE_NAME))
        port = _bound(server, address)
        if (own := private_socket(settings)) is not None:
            private(own.parent)
            _bound(server, Address("", 0, str(own)))
        http = None if settings.http is None else _http_server(settings, settings.http, client)
        stopping = asyncio.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
        await server.start()
        if http is not None:
            await http.start()
        await status.set("", health_pb2.HealthCheckResponse.SERVING)
        await status.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        if not address.is_local or not (settings.http is None or parse_address(settings.http).is_local):
            _log.warning("texts arrive here unencrypted, and this address can be reached from other machines")
        _log.info(
            "serving",
            address=str(address if address.path else Address(address.host, port)),
            http=None if http is None else http.address,
            token_file=None if address.path else str(token_file),
            encoder=settings.encoder or "none",
            model=settings.model or "none",
            pid=os.getpid(),
        )
        if http is not None and http.page_url is not None:
            print(f"Open {http.page_url}", flush=True)
        probing = asyncio.create_task(_probe(client, status))
        await stopping.wait()
        probing.cancel()
        await status.enter_graceful_shutdown()
        if http is not None:
            await http.stop()
        await server.stop(_GRACE_SECONDS)
        if own is not None:
            own.unlink(missing_ok=True)


def _http_server(settings: ClientSettings, listen: str, client: AsyncClient) -> HttpServer:
    """Listen for HTTP, beside gRPC and with the same client."""
    from sealign_client.daemon.http import Access, HttpOptions, HttpServer, Service
    from sealign_client.daemon.http.client_backend import ClientBackend

    over_tcp = not parse_address(listen).path
    options = HttpOptions(
        token=read_token(settings.token_file or default_token_file()) if over_tcp else None,
        hosts=settings.http_hosts,
        origins=settings.http_origins,
        timeout=settings.timeout + _GRACE_SECONDS,
    )
    return HttpServer(Service(ClientBackend(client), options, Access(options)), listen)


def _bound(server: grpc.aio.Server, address: Address) -> int:
    """Listen, and return the port; a Unix socket can be opened by its owner alone."""
    before = os.umask(0o177) if address.path else None
    try:
        return int(server.add_insecure_port(str(address)))
    except RuntimeError as error:
        raise UnavailableError(f"Cannot listen on {address}: it is in use or not permitted. Choose another.") from error
    finally:
        if before is not None:
            os.umask(before)


async def _probe(client: AsyncClient, status: health.aio.HealthServicer) -> None:
    """Keep readiness true to whether the silo answers; load models before the first query."""
    ready: bool | None = None
    with suppress(SealignError):
        if client.classifies:
            await client.encoder()
        if client.generates:
            await client.generator.model()
    while True:
        try:
            silo = await (await client.session.calls()).silo.describe(_PROBE_SECONDS)
            now, reason = True, ""
        except SealignError as error:
            now, reason = False, str(error)
        if now != ready:
            ready = now
            serving = health_pb2.HealthCheckResponse.SERVING
            await status.set(SERVICE, serving if now else health_pb2.HealthCheckResponse.NOT_SERVING)
            if now:
                _log.info("connected", silo=silo.name, tasks=len(silo.tasks), identity=silo.identity)
            else:
                _log.warning("silo not reached", reason=reason)
        await asyncio.sleep(_PROBE_SECONDS)
