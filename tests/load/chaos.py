"""Deaths at every moment, changes while serving, and peers that do harm: what a silo's callers notice of it.

Usage: python -m tests.load.chaos [kills] [seconds for each disturbance]
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sealign.heads import train_head
from sealign_client import Client
from sealign_server.store import SiloStore, StoredTask
from tests.load.application import Application, milliseconds, running, wait_for_answers
from tests.load.killed_writers import KINDS, killed
from tests.load.nuisances import NUISANCES, suffering
from tests.support.certificates import Authority
from tests.support.processes import Server, serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, SILO_DIMENSION, ViewEncoder, client_encoder, make_silo

WORKERS, CLIENTS = 2, 2
_LIMITS = {"budget": 20_000, "map": 10**6, "release": 300}
_POLICY = 'default = "all"\n[tiers.all]\ntasks = ["*"]\nalign = ["plain"]\nunlimited = true\nmax_rows = {rows}\n'


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    what: str
    target: str
    measured: str
    is_met: bool

    def __str__(self) -> str:
        return f"| {self.what} | {self.target} | {self.measured} | {'met' if self.is_met else 'MISSED'} |"


@dataclass(frozen=True)
class Served:
    """A silo under load, and who asks it."""

    silo: Server
    store: SiloStore
    tls: Tls
    stack: ExitStack
    scratch: Path

    def applications(self) -> list[Application]:
        """New applications, whose clients have asked once."""
        found = []
        for number in range(CLIENTS):
            settings = self.tls.client_settings(self.silo.port, timeout=60, map_directory=self.scratch / "maps")
            client = self.stack.enter_context(Client(settings, encoder=client_encoder()))
            application = Application(client, client_encoder().encode([f"text {number}"]))
            client.logits(application.row)
            found.append(application)
        return found

    def workers(self) -> list[int]:
        """Processes of the workers that have not been killed."""
        pids = [int(event["pid"]) for event in self.silo.events("serving")]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@contextmanager
def served(scratch: Path, *further: object) -> Iterator[Served]:
    """A silo with workers, a policy and certificates that may be replaced; a client has aligned."""
    authority = Authority(scratch)
    silo_identity = authority.issue("silo", "localhost", "127.0.0.1")
    tls = Tls(authority, silo_identity, authority.issue("client", "client"))
    store = make_silo(scratch / "silo")
    store.policy_path.write_text(_POLICY.format(rows=1024))
    options = (*tls.serve_options, "--workers", WORKERS, "--message-seconds", 5, "--idle-seconds", 30, *further)
    with ExitStack() as stack:
        started = serving("sealign-server", "serve", store.directory, *options, log=scratch / "log", workers=WORKERS)
        found = Served(stack.enter_context(started), store, tls, stack, scratch)
        settings = tls.client_settings(found.silo.port, map_directory=scratch / "maps")
        with Client(settings, encoder=client_encoder()) as client:
            client.align(PUBLIC)
        yield found


def kill_a_worker(found: Served) -> None:
    """Kill one, and wait until another has taken its place."""
    before = len(found.silo.events("serving"))
    os.kill(random.choice(found.workers()), signal.SIGKILL)
    found.silo.wait_for("serving", before + 1)
    time.sleep(10.5)  # five deaths within a minute are too many for the supervisor


def change_everything(found: Served) -> None:
    """Train a head, write a policy and the certificate again, and say so."""
    encoder = ViewEncoder("the silo's", SILO_DIMENSION)
    rows = encoder.encode([f"other {time.monotonic_ns()} {number}" for number in range(120)])
    head = train_head(rows, ["red" if row[0] > 0.1 else "green" if row[1] > 0 else "blue" for row in rows])
    found.store.tasks.save("colours", StoredTask(head, "", None, None, None))
    found.store.policy_path.write_text(_POLICY.format(rows=random.randrange(512, 1024)))
    for file in (found.tls.silo.key, found.tls.silo.certificate):
        copy = file.with_suffix(".new")
        shutil.copy2(file, copy)
        copy.replace(file)
    found.silo.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)


def disturbed(found: Served, seconds: float, disturb: Callable[[Served], None]) -> tuple[list[Application], int]:
    """Disturb again and again for some seconds; return the applications, and how often."""
    applications, times, end = found.applications(), 0, time.monotonic() + seconds
    with running(applications):
        wait_for_answers(applications, 3)
        while not times or time.monotonic() < end:
            disturb(found)
            times += 1
        wait_for_answers(applications, 3)
    return applications, times


def rows_of_kills(scratch: Path, kills: int) -> Iterator[Row]:
    """Kill writers so often in all."""
    for kind in KINDS:
        share = kills // len(KINDS) + (kind == KINDS[0]) * (kills % len(KINDS))
        try:
            measured, is_met = str(killed(kind, scratch / kind, share, _LIMITS[kind])), True
        except AssertionError as error:
            measured, is_met = str(error), False
        target = "nothing granted twice or lost, files whole, chain verifies"
        yield Row(f"kill -9 of those that write: {kind}", target, measured, is_met)


def rows_of_service(found: Served, seconds: float) -> Iterator[Row]:
    """Disturb a silo that serves, in each way."""
    calm = found.applications()
    with running(calm):
        time.sleep(seconds)
    before = milliseconds(calm, 0.99)
    yield Row("nothing", "", _said(calm), not _faults(calm))
    disturbances: tuple[tuple[str, Callable[[Served], None]], ...] = (
        ("kill -9 of a worker under load", kill_a_worker),
        ("hot reload of head, policy and certificate under load", change_everything),
    )
    for what, disturb in disturbances:
        applications, times = disturbed(found, seconds, disturb)
        yield Row(what, "0 failed calls", f"{times} times, {_said(applications)}", not _faults(applications))
    for nuisance in NUISANCES:
        applications = found.applications()
        with suffering(nuisance, found.silo.port, found.tls) as cut, running(applications):
            time.sleep(seconds)
        after = milliseconds(applications, 0.99)
        what = f"{(nuisance.__doc__ or '').rstrip('.')}"
        measured = f"{_said(applications)}; {cut[0]} connections cut; p99 {after / before:.1f} times"
        yield Row(what, "p99 of others at most doubles", measured, not _faults(applications) and after <= 2 * before)
    wrong = found.silo.events("internal error")
    yield Row("the silo's log", "no internal error", f"{len(wrong)}: {wrong[:2]}", not wrong)


def _faults(applications: Sequence[Application]) -> list[str]:
    return [fault for application in applications for fault in application.faults]


def _said(applications: Sequence[Application]) -> str:
    calls, faults = sum(len(application.seconds) for application in applications), _faults(applications)
    quantiles = (milliseconds(applications, 0.5), milliseconds(applications, 0.99), milliseconds(applications, 1.0))
    said = "{} calls, {} failed, p50 {:.0f} ms, p99 {:.0f} ms, longest {:.0f} ms".format(calls, len(faults), *quantiles)
    return said + "".join(f"; {fault}" for fault in faults[:2])


def main(kills: int, seconds: float) -> int:
    """Print the table, and return the exit status."""
    print("| what happens | target | measured | |\n| --- | --- | --- | --- |")
    met = True
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows_of_kills(Path(scratch), kills):
            print(row, flush=True)
            met &= row.is_met
        (Path(scratch) / "served").mkdir()
        with served(Path(scratch) / "served") as found:
            for row in rows_of_service(found, seconds):
                print(row, flush=True)
                met &= row.is_met
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, float(sys.argv[2]) if len(sys.argv) > 2 else 30.0)
    )
