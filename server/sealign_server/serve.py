"""The silo's processes: TLS, health, reflection, workers, orderly shutdown."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sealign.app.logs import configure_logs
from sealign.app.tls import load_authorities, load_identity
from sealign.errors import UnavailableError
from sealign.protocol.v1 import generation_pb2, silo_pb2
from sealign.protocol.v1.generation_pb2_grpc import add_GenerationServicer_to_server
from sealign.protocol.v1.silo_pb2_grpc import add_SiloServicer_to_server
from sealign_server.generation import GenerationTasks
from sealign_server.generation_service import GenerationService
from sealign_server.public_keys import PublicKeyCache
from sealign_server.service import SiloService
from sealign_server.settings import ServeSettings
from sealign_server.silo import Silo
from sealign_server.store import SiloStore

_log = structlog.get_logger()

SERVICE = silo_pb2.DESCRIPTOR.services_by_name["Silo"].full_name
GENERATION = generation_pb2.DESCRIPTOR.services_by_name["Generation"].full_name
MAX_MESSAGE_BYTES = 32 << 20


def serve(directory: Path, settings: ServeSettings) -> None:
    """Serve the silo in ``directory`` until SIGTERM or SIGINT.

    Raises:
        NotFoundError, StorageError: the directory is not a silo, or is damaged.
        InvalidInputError, AuthenticationError: certificates that cannot work.
        UnavailableError: the address cannot be listened on.
    """
    credentials(settings)  # refuse bad certificates before any process starts
    SiloStore(directory).remove_leftovers()
    with closing(_reserved(settings.listen)) as reserved:
        # Beside serving, since large vocabularies take seconds.
        Thread(target=GenerationTasks(SiloStore(directory), settings).check, daemon=True).start()
        host = settings.listen.rpartition(":")[0]
        address = f"{host}:{reserved.getsockname()[1]}"
        if settings.workers == 1:
            asyncio.run(_serve(directory, settings, address))
        else:
            _supervise(directory, settings, address)


def credentials(settings: ServeSettings) -> grpc.ServerCredentials:
    """TLS credentials from the settings; with a client authority, clients must show a certificate."""
    identity = load_identity(settings.tls_cert, settings.tls_key)
    authorities = None if settings.tls_client_ca is None else load_authorities(settings.tls_client_ca)
    return grpc.ssl_server_credentials(
        [(identity.key, identity.certificate)], authorities, require_client_auth=authorities is not None
    )


def _reserved(listen: str) -> socket.socket:
    """A bound socket that keeps the port for the workers, who share it by SO_REUSEPORT."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:  # SO_REUSEPORT would share with another silo
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, int(port)))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, int(port)))
    except OSError as error:
        reserved.close()
        raise UnavailableError(f"cannot listen on {listen}: {error.strerror}; choose another --listen") from error
    return reserved


def _supervise(directory: Path, settings: ServeSettings, address: str) -> None:
    """Run workers until a signal comes or one of them dies; then stop all."""
    # Spawned, not forked: gRPC's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers: list[BaseProcess] = [
        context.Process(target=_work, args=(directory, settings.model_dump(), address)) for _ in range(settings.workers)
    ]
    stopping = False

    def stop(signum: int, _: object) -> None:
        nonlocal stopping
        if stopping:
            return  # a second signal would kill a worker that is on its way out
        stopping = True
        for worker in workers:
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, signum)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for worker in workers:
        if not stopping:
            worker.start()
    started = [worker for worker in workers if worker.pid is not None]
    multiprocessing.connection.wait([worker.sentinel for worker in started])
    stop(signal.SIGTERM, None)
    for worker in started:
        worker.join()
    if any(worker.exitcode for worker in started):
        raise UnavailableError("a worker process ended unexpectedly; its log says why")


def _work(directory: Path, settings: dict[str, object], address: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor forwards what it gets
    restored = ServeSettings.model_validate(settings)
    configure_logs(restored.log_level)
    asyncio.run(_serve(directory, restored, address))


async def _serve(directory: Path, settings: ServeSettings, address: str) -> None:
    keys = PublicKeyCache(settings.max_keys, settings.zeros_per_key)
    silo = Silo(SiloStore(directory), settings)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 1),
        ],
    )
    service = SiloService(silo, keys, settings.security_table, settings.max_concurrent, settings.alignment_seconds)
    add_SiloServicer_to_server(service, server)
    tasks = GenerationTasks(SiloStore(directory), settings)
    generation = GenerationService(tasks, keys, settings.max_concurrent, settings.alignment_seconds)
    add_GenerationServicer_to_server(generation, server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection((SERVICE, GENERATION, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    server.add_secure_port(address, credentials(settings))

    stopping = _stop_request()
    await server.start()
    warming = asyncio.create_task(keys.keep_warm())
    for name in ("", SERVICE, GENERATION):
        await status.set(name, health_pb2.HealthCheckResponse.SERVING)
    _log.info("serving", address=address, pid=os.getpid(), mutual_tls=settings.tls_client_ca is not None)
    await stopping.wait()
    _log.info("draining", seconds=settings.drain_seconds)
    await status.enter_graceful_shutdown()
    await server.stop(settings.drain_seconds)
    warming.cancel()
    _log.info("stopped")


def _stop_request() -> asyncio.Event:
    """Set by SIGTERM or SIGINT, and in a worker by the end of its supervisor, however that ended."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        sentinel = supervisor.sentinel

        def orphaned() -> None:
            loop.remove_reader(sentinel)
            stopping.set()

        loop.add_reader(sentinel, orphaned)
    return stopping
