"""Serve a silo: in this process, or in workers that this one supervises."""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Thread

import structlog

from sealign.app.addresses import Address, parse_address
from sealign.errors import InvalidInputError, UnavailableError
from sealign_server.access import shared_buckets
from sealign_server.ledger import Ledger
from sealign_server.observe import metrics_served
from sealign_server.runtime.guards import policies_of, state_of
from sealign_server.runtime.reload import known_as_serving
from sealign_server.runtime.supervisor import supervise
from sealign_server.runtime.tls import Certificates
from sealign_server.runtime.worker import Addresses, run_worker
from sealign_server.serving import Silo
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore, remove_leftovers

_log = structlog.get_logger()


def serve(directory: Path, settings: ServeSettings) -> None:
    """Serve the silo in ``directory`` until SIGTERM or SIGINT.

    Raises:
        NotFoundError, StorageError: the directory is not a silo, or is damaged.
        InvalidInputError, AuthenticationError: certificates that cannot work.
        UnavailableError: the address cannot be listened on, or workers keep dying.
    """
    Certificates(settings).loaded()  # refuse bad certificates before any process starts
    if settings.allows_anonymous:
        _log.warning(
            "callers are anonymous: everybody who can connect may query, and nobody may align; see --tls-client-ca",
            listen=settings.listen,
        )
    store = SiloStore(directory)
    policies = policies_of(store, settings)  # refuse a bad one too
    remove_leftovers(directory)
    _raise_descriptor_limit()
    ledger = Ledger(store.ledger_path, settings.ledger)
    state = state_of(store, ledger, policies)
    with (
        ExitStack() as reserved,
        metrics_served(settings.metrics_listen, state),
        known_as_serving(store.serving_path),
        shared_buckets() as buckets,
    ):
        tokens = settings.token_listen
        addresses = Addresses(
            _address(settings.listen, reserved), None if tokens is None else _address(tokens, reserved)
        )
        # Beside serving, since large vocabularies take seconds.
        Thread(target=_check, args=(store, settings), daemon=True).start()
        if settings.workers == 1:
            asyncio.run(run_worker(directory, settings, addresses, buckets))
        else:
            supervise(directory, settings, addresses, buckets)


def _check(store: SiloStore, settings: ServeSettings) -> None:
    """Log which generation tasks cannot be served, before a client asks."""
    silo = Silo(store, Ledger(store.ledger_path, settings.ledger), settings.serving())
    silo.generation.check()
    silo.close()


def _raise_descriptor_limit() -> None:
    """Allow as many connections as the system does; workers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _address(listen: str, reserved: ExitStack) -> str:
    """Return host and port to listen on, which are kept until the stack is closed."""
    kept = reserved.enter_context(closing(_reserved(listen)))
    return str(Address(parse_address(listen).host, kept.getsockname()[1]))


def _reserved(listen: str) -> socket.socket:
    """Return a bound socket that keeps the port for the workers, who share it by SO_REUSEPORT."""
    address = parse_address(listen)
    if address.path:
        raise InvalidInputError(f"cannot listen on {listen}: a silo serves TCP; give host:port")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:  # SO_REUSEPORT would share with another silo
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((address.host, address.port))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((address.host, address.port))
    except OSError as error:
        reserved.close()
        raise UnavailableError(f"cannot listen on {listen}: {error.strerror}; choose another --listen") from error
    return reserved
