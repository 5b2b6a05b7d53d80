"""How the HTTP interface is served."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HttpOptions:
    """Who may call the HTTP interface, and how much at a time.

    Attributes:
        token: bearer token that calls must carry; None only on a Unix socket, whose file permissions decide.
        hosts: names that a Host header may carry, besides those of the loopback interface; without port.
        origins: web origins whose pages may call, such as "https://app.example". Others are refused.
        max_body_bytes: of a request's body.
        max_public_bytes: of a public text file that is uploaded.
        max_concurrent: calls that do work; more are refused with 429.
        max_connections: open at the same time.
        timeout: seconds for one call, from its first byte; a stream of tokens may take `stream_timeout`.
    """

    token: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 8 << 20
    max_public_bytes: int = 32 << 20
    max_concurrent: int = 64
    max_connections: int = 512
    timeout: float = 60.0
    stream_timeout: float = 600.0
