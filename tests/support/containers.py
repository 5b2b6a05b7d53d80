"""Composed containers, seen as a user sees them: what is printed, what is healthy, who reaches whom."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
_STARTER = ROOT.parent / "shared" / "tools" / "with-container-engine"
"""Runs a command with an engine of its own, on machines that have this program and no engine."""
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class NoEngineError(Exception):
    """There is no container engine, and why."""


@contextmanager
def engine() -> Iterator[None]:
    """Have `docker compose` work: with the engine that answers, or one that is started and ended here.

    Raises:
        NoEngineError: neither is possible.
    """
    if _answers(os.environ):
        yield
        return
    if not os.access(_STARTER, os.X_OK):
        raise NoEngineError("no container engine answers `docker version` and `docker compose version`")
    command = [str(_STARTER), "sh", "-c", "env; echo ready; cat >&2"]
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert started.stdin is not None
    assert started.stdout is not None
    before = dict(os.environ)
    try:
        for line in started.stdout:
            name, _, value = line.rstrip("\n").partition("=")
            if name in ("DOCKER_HOST", "DOCKER_CONFIG"):
                os.environ[name] = value
            if name == "ready":
                break
        if not _answers(os.environ):
            raise NoEngineError(f"{_STARTER.name} could not start a container engine here")
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        started.stdin.close()
        started.wait()


def _answers(environment: Any) -> bool:
    try:
        return all(
            subprocess.run(["docker", *words], capture_output=True, env=environment).returncode == 0
            for words in (["version"], ["compose", "version"])
        )
    except FileNotFoundError:
        return False


@contextmanager
def small_volume(name: str, directory: Path, megabytes: int) -> Iterator[tuple[Path, Path]]:
    """Yield a file system in memory, and a compose file that makes a volume of it.

    It needs the rights to mount, and an engine on this machine.
    """
    place, override = directory / "volume", directory / "override.yaml"
    place.mkdir()
    options = {"type": "none", "o": "bind", "device": str(place)}
    override.write_text(json.dumps({"volumes": {name: {"driver": "local", "driver_opts": options}}}))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "sealign-test", place], check=True)
    try:
        yield place, override
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def filled(volume: Path) -> Iterator[None]:
    """Have no room left in a file system while inside."""
    filler = volume / "filler"
    with filler.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(1 << 16))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def cut_off(network: str, container: str, alias: str) -> Iterator[None]:
    """Take a container from a network while inside; it has an alias there."""
    docker("network", "disconnect", network, container)
    try:
        yield
    finally:
        docker("network", "connect", "--alias", alias, network, container)


def kill_process(container: str) -> None:
    """Kill what a container's init runs, by SIGKILL."""
    docker("exec", container, "bash", "-c", "kill -KILL $(cat /proc/1/task/1/children)")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 240.0) -> None:
    """Wait for a condition."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        sleep(0.5)


def docker(*words: str, check: bool = True) -> str:
    """Run a command of the engine and return what it printed."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, cwd=ROOT)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


class Builds:
    """Builds images of compose files one file after another, while the first demos are tested already.

    Args:
        files: names of compose files in deploy, in the order of their tests.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._built = {file: self._pool.submit(_build, file) for file in files}

    def wait(self, file: str) -> None:
        """Wait until a file's images are there; fail as its build did."""
        self._built[file].result()

    def close(self) -> None:
        """Begin no other build."""
        self._pool.shutdown(cancel_futures=True)


def _build(file: str) -> None:
    docker("compose", "--file", f"deploy/{file}", "build", "--quiet")


class Composition:
    """A compose file that is up, in a project of its own.

    Args:
        file: name of the compose file in deploy.
        screen: file that gets what the user sees.
        override: another compose file, which changes the first.
    """

    def __init__(self, file: str, screen: Path, override: Path | None = None) -> None:
        self.project = "sealign-test"
        self._screen = screen
        self._up: subprocess.Popen[bytes] | None = None
        files = ["--file", f"deploy/{file}", *([] if override is None else ["--file", str(override)])]
        self._command = ("compose", "--project-name", self.project, *files)

    def up(self) -> None:
        """Start it as the documentation says, in the foreground of a process."""
        with self._screen.open("ab") as stream:
            command = ["docker", *self._command, "--ansi", "never", "up"]
            self._up = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have everything up, from nothing; end and forget it at last. Its images are there."""
        self.down("--volumes")  # of a run that was cut off
        try:
            self.up()
            yield
        finally:
            self.down("--volumes")

    def down(self, *options: str) -> None:
        """End it."""
        self.run("down", "--timeout", "10", "--remove-orphans", *options)
        if self._up is not None:
            self._up.wait(timeout=60)

    def run(self, *words: str, check: bool = True) -> str:
        """Run a subcommand of compose and return what it printed."""
        return docker(*self._command, *words, check=check)

    def lines(self, service: str) -> list[str]:
        """Return the lines of a service that are on the screen."""
        screen = _ANSI.sub("", self._screen.read_text(errors="replace")).replace("\r", "")
        parts = (line.partition("|") for line in screen.splitlines())
        return [text.strip() for name, bar, text in parts if bar and re.fullmatch(rf"{service}-\d+\s*", name.strip())]

    def container(self, service: str) -> str:
        """Return the container's id."""
        return self.run("ps", "--all", "--quiet", service).strip()

    def inspected(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        found: dict[str, Any] = json.loads(docker("inspect", self.container(service)))[0]
        return found

    def health(self, service: str) -> str:
        """Return healthy, unhealthy or starting."""
        return str(self.inspected(service)["State"]["Health"]["Status"])

    def address(self, service: str, network: str) -> str:
        """Return a container's IP address in a network."""
        return str(self.inspected(service)["NetworkSettings"]["Networks"][f"{self.project}_{network}"]["IPAddress"])

    def reached(self, ways: Sequence[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
        """Return the ways, of a service to host and port, that are open; each that is not waits for its time limit."""
        with ThreadPoolExecutor(len(ways)) as pool:
            found = pool.map(lambda way: self.reaches(*way), ways)
        return [way for way, is_open in zip(ways, found, strict=True) if is_open]

    def reaches(self, service: str, host: str, port: int) -> bool:
        """Return whether a TCP connection opens from inside a container."""
        opening = f"exec 3<>/dev/tcp/{host}/{port}"
        words = (*self._command, "exec", "--no-TTY", service, "timeout", "3", "bash", "-c", opening)
        return subprocess.run(["docker", *words], capture_output=True, cwd=ROOT).returncode == 0


@contextmanager
def opened_page(demo: Composition) -> Iterator[httpx.Client]:
    """Yield a browser's calls after the address that the daemon has printed was opened."""
    line = next(line for line in demo.lines("daemon") if line.startswith("Open "))
    found = re.fullmatch(r"Open http://(sealign\.localhost:7480)/#ticket=(\S+)", line)
    assert found is not None
    with httpx.Client(base_url="http://127.0.0.1:7480", headers={"Host": found[1]}, timeout=60) as page:
        assert "<html" in page.get("/").text
        token = page.post("/page/session", json={"ticket": found[2]}).json()["token"]
        page.headers["Authorization"] = f"Bearer {token}"
        yield page


def stages(demo: Composition) -> str:
    """Return when each container started, in seconds after the first was created."""
    found = [json.loads(docker("inspect", name))[0] for name in demo.run("ps", "--all", "--quiet").split()]
    first = min(datetime.fromisoformat(entry["Created"][:26]) for entry in found)
    times = []
    for entry in found:
        state, service = entry["State"], entry["Config"]["Labels"]["com.docker.compose.service"]
        begun = datetime.fromisoformat(state["StartedAt"][:26]) - first
        text = f"{service} {begun.total_seconds():.1f}"
        if state["Status"] == "exited":
            text += f" to {(datetime.fromisoformat(state['FinishedAt'][:26]) - first).total_seconds():.1f}"
        times.append((begun, text))
    return "started (s): " + ", ".join(text for _, text in sorted(times))
