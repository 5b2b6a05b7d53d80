"""A daemon with HTTP in a process of its own, as an application and a browser meet it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import Server, environment, script
from tests.support.silo import Tls


@dataclass(frozen=True)
class HttpDaemon(Server):
    """A running daemon.

    Attributes:
        directory: its maps, token and log.
    """

    directory: Path

    @property
    def url(self) -> str:
        """Where it listens for HTTP."""
        return str(self.events("serving")[0]["http"])

    @property
    def token(self) -> str:
        """What calls must carry."""
        return (self.directory / "token").read_text().strip()

    @property
    def page_url(self) -> str:
        """The address that opens the page, once."""
        return (self.directory / "stdout").read_text().split()[1]

    def client(self, **options: Any) -> httpx.Client:
        """Return a client that sends the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, **options)

    def wait_until_ready(self, status: int = 200, seconds: float = 60.0) -> None:
        """Wait until ``/ready`` has a status."""
        deadline = time.monotonic() + seconds
        with self.client() as client:
            while (response := client.get("/ready")).status_code != status:
                assert time.monotonic() < deadline, response.text
                time.sleep(0.2)


@contextmanager
def http_daemon(
    directory: Path, tls: Tls, port: int, encoder_name: str | None, *options: object
) -> Iterator[HttpDaemon]:
    """Start a daemon of the silo on a port, with an encoder or without, and end it on the way out."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "daemon.log"
    arguments = (
        *("daemon", *tls.client_options(port), "--log-level", "debug"),
        *(() if encoder_name is None else ("--encoder", encoder_name)),
        *("--map-directory", directory / "maps", "--token-file", directory / "token"),
        *("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *options),
    )
    with log.open("wb") as stderr, (directory / "stdout").open("wb") as stdout:
        process = subprocess.Popen(
            [script("sealign"), *map(str, arguments)], stdout=stdout, stderr=stderr, env=environment()
        )
    daemon = HttpDaemon(process, log, directory)
    try:
        daemon.wait_for("serving")
        yield daemon
    finally:
        daemon.end()


def align(daemon: HttpDaemon, public: Path) -> dict[str, Any]:
    """Align as the page does, and return how it ended."""
    with daemon.client() as client:
        headers = {"Content-Type": "text/plain"}
        state = client.post("/page/alignments", content=public.read_bytes(), headers=headers).raise_for_status().json()
        while state["state"] == "running":
            time.sleep(0.2)
            state = client.get(f"/page/alignments/{state['id']}").raise_for_status().json()
    assert isinstance(state, dict)
    return state
