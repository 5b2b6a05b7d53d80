"""Real processes: the console scripts of the environment that runs the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_SECONDS = 120.0


def script(name: str) -> str:
    """Path of an installed console script, or of a program that is given by its path."""
    return str(Path(sys.executable).parent / name)


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without Sealign's settings, offline, one thread a process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEALIGN_")}
    return inherited | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | extra


def command(name: str, *arguments: object, stdin: str | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a console script to its end."""
    return subprocess.run(
        [script(name), *map(str, arguments)],
        input=stdin,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@dataclass(frozen=True)
class Server:
    """A running Sealign process that serves."""

    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def address(self) -> str:
        """Where it listens, as its log says."""
        return str(self.events("serving")[0]["address"])

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> str:
        """All that it wrote to standard error so far."""
        return self.log_path.read_text(encoding="utf-8")

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of one event."""
        lines = [line for line in self.log.splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until the log holds an event ``count`` times; a process that ends early says no more."""
        deadline = time.monotonic() + _START_SECONDS
        while len(self.events(event)) < count:
            assert time.monotonic() < deadline, f"no {event!r} within {_START_SECONDS} s: {self.log}"
            assert "error: " not in self.log, self.log
            time.sleep(0.05)

    def end(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit status."""
        if self.is_running:
            self.process.send_signal(signum)
        return self.process.wait(timeout=60)


@contextmanager
def serving(name: str, *arguments: object, log: Path, workers: int = 1, **extra: str) -> Iterator[Server]:
    """Start a console script that serves, wait until it does, and end it on the way out."""
    with log.open("wb") as stderr:
        process = subprocess.Popen([script(name), *map(str, arguments)], stderr=stderr, env=environment(**extra))
    server = Server(process, log)
    try:
        server.wait_for("serving", workers)
        yield server
    finally:
        server.end()
