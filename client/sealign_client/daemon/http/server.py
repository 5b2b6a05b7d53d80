"""Serves the HTTP interface beside the gRPC one, in the same event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from sealign.app.addresses import Address, parse_address
from sealign.errors import InvalidInputError, UnavailableError
from sealign_client.daemon.http.app import http_app
from sealign_client.daemon.http.operations import Service

_BACKLOG = 128
_GRACE = 5
_MOST_HEADER_BYTES = 16 << 10


class HttpServer:
    """A listening HTTP interface.

    Attributes:
        address: where it listens: a URL, or ``unix:PATH``.
    """

    def __init__(self, service: Service, listen: str) -> None:
        """Listen, without answering yet.

        Raises:
            InvalidInputError: the address is neither HOST:PORT nor unix:PATH; TCP without a token.
            UnavailableError: the address is in use or not permitted.
        """
        address = parse_address(listen)
        if not address.path and service.options.token is None:
            raise InvalidInputError("HTTP over TCP needs a token: every program here can reach the port.")
        self._service = service
        self._path = address.path
        self._socket = _listening(address)
        port = 0 if address.path else self._socket.getsockname()[1]
        self.address = str(address) if address.path else f"http://{Address(address.host, port)}"
        config = uvicorn.Config(
            http_app(service),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=service.options.max_connections,
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE,
        )
        self._server = _Embedded(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def page_url(self) -> str | None:
        """Address that opens the page, once; None on a Unix socket, which no browser opens."""
        ticket = self._service.access.ticket
        return None if ticket is None or self._path else f"{self.address}/#ticket={ticket}"

    async def start(self) -> None:
        """Answer from now on."""
        self._task = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Finish what is being answered, within 5 s, and close the socket."""
        self._server.should_exit = True
        await self._service.alignments.close()
        if self._task is not None:
            await self._task
        self._socket.close()
        if self._path:
            Path(self._path).unlink(missing_ok=True)


class _Embedded(uvicorn.Server):
    """A server that leaves signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _listening(address: Address) -> socket.socket:
    try:
        return _unix(Path(address.path)) if address.path else _tcp(address)
    except OSError as error:
        reason = "in use" if error.errno == errno.EADDRINUSE else error.strerror or "not permitted"
        raise UnavailableError(f"Cannot listen for HTTP on {address}: {reason}. Choose another address.") from error


def _tcp(address: Address) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _unix(path: Path) -> socket.socket:
    """Listen on a socket that only this user may open."""
    _remove_abandoned(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _remove_abandoned(path: Path) -> None:
    """Remove a socket that nobody listens on, as a killed daemon leaves it."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "a file that is no socket is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "in use")
