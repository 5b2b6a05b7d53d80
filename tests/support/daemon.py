"""An application of a client daemon: a channel that shows the daemon's token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from tests.support.processes import Server


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: list[tuple[str, str]]
    credentials: object
    wait_for_ready: bool | None
    compression: object


class _WithToken(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[misc,type-arg]
    def __init__(self, token: str) -> None:
        self._token = token

    def _called(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {self._token}")]
        fields = (details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, None)
        return continuation(_Details(*fields), request)

    intercept_unary_unary = intercept_unary_stream = _called


@contextmanager
def daemon_channel(daemon: Server) -> Iterator[grpc.Channel]:
    """A channel to a daemon on TCP, with its token and without a limit on what is sent."""
    token = Path(daemon.events("serving")[0]["token_file"]).read_text().strip()
    with grpc.insecure_channel(daemon.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield grpc.intercept_channel(channel, _WithToken(token))
