"""The silo's process of the demo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep

from sealign.errors import UnavailableError

TASK = "r8"


@contextmanager
def running_silo(work: Path, name: str) -> Iterator[str]:
    """Run a silo that demands client certificates; yield its address and end it.

    Args:
        work: the demo's directory, with the certificates in ``tls``.
        name: of the silo's directory in it.

    Raises:
        UnavailableError: the silo did not start.
    """
    tls, log = work / "tls", work / f"{name}.log"
    command = [Path(sys.executable).parent / "sealign-server", "serve", work / name, "--listen", "127.0.0.1:0"]
    command += ["--tls-cert", tls / "silo.pem", "--tls-key", tls / "silo.key", "--tls-client-ca", tls / "ca.pem"]
    with log.open("wb") as stream:
        process = subprocess.Popen([str(part) for part in command], stderr=stream)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return where the silo listens, by its own log."""
    deadline = perf_counter() + 60
    while perf_counter() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "serving":
                return f"localhost:{event['address'].rpartition(':')[2]}"
        sleep(0.1)
    raise UnavailableError(f"The silo did not start. See {log}.")
