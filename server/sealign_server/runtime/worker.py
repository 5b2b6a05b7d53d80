"""One process that serves: its gRPC server, from start to drained stop."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
from grpc_health.v1 import health, health_pb2_grpc

from sealign.app.reflection import enable_reflection
from sealign_server.ledger import Ledger
from sealign_server.rpc import Service, build_server
from sealign_server.rpc.server import SERVICES
from sealign_server.runtime.floods import FloodWatch
from sealign_server.runtime.guards import guards_of
from sealign_server.runtime.readiness import Readiness
from sealign_server.runtime.tls import Certificates
from sealign_server.serving import Silo
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore

_log = structlog.get_logger()

_SWITCH_SECONDS = 0.001
"""How long a thread of long products keeps the interpreter from the event loop."""
_QUIET_SECONDS = 0.1
_STOP_SECONDS = 2.0
"""For the server to end once all calls have."""
_reloads: set[asyncio.Future[None]] = set()
"""Reloads under way; the loop itself would let go of them."""
_PENDING = 48
"""Calls that have come and that Python has not taken. Beyond, gRPC's core ends calls itself (CANCELLED, which clients
retry): a refusal in Python costs a fifth of an answer, so a flood of refusals would leave no time for answers. One
connection alone, which has no more streams, is never refused so."""
_CHANNEL_OPTIONS = {
    "grpc.so_reuseport": 1,
    # Connections: pings of honest clients are welcome, dead peers are noticed, long ones spread over workers.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_ping_interval_without_data_ms": 10_000,
    "grpc.http2.min_recv_ping_interval_without_data_ms": 10_000,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.max_connection_idle_ms": 3_600_000,
    "grpc.max_connection_age_ms": 3_600_000,
    "grpc.max_connection_age_grace_ms": 600_000,
    "grpc.max_concurrent_streams": _PENDING,
    "grpc.server.max_pending_requests": _PENDING,
    "grpc.server.max_pending_requests_hard_limit": 2 * _PENDING,
    "grpc.server_handshake_timeout_ms": 10_000,
    "grpc.experimental.tcp_max_read_chunk_size": 1 << 16,  # what is parsed before a cut is noticed
}


@dataclass(frozen=True)
class Addresses:
    """Where a silo listens.

    Attributes:
        all: host and port, for every caller that has what settings demand.
        tokens: host and port for callers with tokens alone; None for none.
    """

    all: str
    tokens: str | None = None


async def run_worker(directory: Path, settings: ServeSettings, addresses: Addresses, buckets: Path) -> None:
    """Serve until a signal comes, or the supervisor ends; then drain.

    Args:
        directory: the silo's.
        settings: of serving.
        addresses: where to listen.
        buckets: file that all workers count requests in.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    store = SiloStore(directory)
    ledger = Ledger(store.ledger_path, settings.ledger)
    guards = guards_of(store, ledger, settings, buckets)
    service = Service(Silo(store, ledger, settings.serving()), guards, settings.serving(), settings.calls())
    service.record_policy()
    limits = {"grpc.max_allowed_incoming_connections": settings.max_connections}
    server = build_server(service, _CHANNEL_OPTIONS | limits)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    enable_reflection(server, (*SERVICES, health.SERVICE_NAME))
    readiness = Readiness(service.silo, status)
    certificates = Certificates(settings)
    server.add_secure_port(addresses.all, certificates.credentials(demanding=True))
    if addresses.tokens is not None:
        server.add_secure_port(addresses.tokens, certificates.credentials(demanding=False))

    stopping = _stop_request()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, service, certificates)
    await server.start()
    ports = [int(address.rpartition(":")[2]) for address in (addresses.all, addresses.tokens) if address is not None]
    floods = FloodWatch(ports, service.callers)
    beside = list(map(asyncio.create_task, (*service.beside(), floods.keep_watch())))
    await readiness.begin()
    beside.append(asyncio.create_task(readiness.keep_true()))
    tokens = {} if addresses.tokens is None else {"token_address": addresses.tokens}
    mutual = settings.tls_client_ca is not None
    key = store.signing.public.hex()
    _log.info("serving", address=addresses.all, **tokens, pid=os.getpid(), mutual_tls=mutual, signing_key=key)
    await stopping.wait()
    ended = await _drain(service, server, status, settings.drain_seconds)
    for task in beside:
        task.cancel()
    service.close()
    guards.trail.close()
    ledger.close()
    _log.info("stopped")
    if not ended:  # gRPC would wait for such peers when the interpreter ends, too
        sys.stderr.flush()
        os._exit(0)


def _reload(service: Service, certificates: Certificates) -> None:
    """Look at once at what is looked at twice a second; heads and maps are read when they are used."""
    certificates.look_again()
    _reloads.add(task := asyncio.ensure_future(service.reload()))
    task.add_done_callback(_reloads.discard)


async def _drain(service: Service, server: Any, status: Any, seconds: float) -> bool:
    """Stop so that calls end: health first, then a quiet moment, then no more new ones, then the server.

    Returns whether the server has ended: peers that flood it with pings can keep it from that.

    gRPC takes calls before Python sees them, and would cancel those that Python has not seen when the server stops.
    So it is stopped when no call has come for a moment; where they keep coming, new ones are sent elsewhere first.
    """
    _log.info("draining", seconds=seconds)
    await status.enter_graceful_shutdown()
    began = monotonic()
    if not await _quiet(service, min(1.0, seconds / 4)):
        service.drain.is_closed = True
        await _quiet(service, min(2.0, seconds / 4))
    service.drain.is_closed = True
    left = max(0.0, seconds - (monotonic() - began))
    stopped: asyncio.Future[None] = asyncio.ensure_future(server.stop(left))
    await asyncio.wait({stopped}, timeout=left + _STOP_SECONDS)
    if not stopped.done():
        _log.warning("some connections do not end; the process does")
    return stopped.done()


async def _quiet(service: Service, seconds: float) -> bool:
    """Return whether there came a moment in which no call began, within so many seconds."""
    ends, seen, since = monotonic() + seconds, service.frame.begun, monotonic()
    while monotonic() < ends:
        await asyncio.sleep(0.01)
        if service.frame.begun != seen:
            seen, since = service.frame.begun, monotonic()
        elif monotonic() - since >= _QUIET_SECONDS:
            return True
    return False


def _stop_request() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets, and in a worker the end of its supervisor, however that ended."""
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
