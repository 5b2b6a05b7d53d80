"""An application of a client daemon: a channel that shows the daemon's token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc

from tests.support.processes import Server

_Call = TypeVar("_Call")


class _Details(grpc.ClientCallDetails):
    """Those of another call, with one more header."""

    def __init__(self, details: grpc.ClientCallDetails, header: tuple[str, str]) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = (*(details.metadata or ()), header)
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = None


class _WithToken(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Callable[..., _Call], details: Any, request: object) -> _Call:
        return continuation(_Details(details, self._header), request)

    def intercept_unary_stream(self, continuation: Callable[..., _Call], details: Any, request: object) -> _Call:
        return continuation(_Details(details, self._header), request)


@contextmanager
def daemon_channel(daemon: Server) -> Iterator[grpc.Channel]:
    """A channel to a daemon on TCP, with its token and without a limit on what is sent."""
    token = Path(daemon.events("serving")[0]["token_file"]).read_text().strip()
    with grpc.insecure_channel(daemon.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield grpc.intercept_channel(channel, _WithToken(token))
