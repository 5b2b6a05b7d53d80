"""Faults of a demo while its user watches the screen: one clear message each, and it goes on by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.containers import Composition, cut_off, docker, filled, kill_process, wait_until

_NO_ANSWER = "no answer"
"""How the demos' applications say that there is none."""

_ROTATE = """
set -eu
cd /tmp
umask 077
sealign-server certificates new --host "$1" --host localhost --client client --client probe
# Both authorities first, for both sides; then the certificates; each file by a rename.
put() { cp "$1" "$2.new" && mv "$2.new" "$2"; }
cat /tls/silo/ca.pem new/ca.pem > both.pem
for side in silo "$2"; do put both.pem /tls/$side/ca.pem; done
for name in silo probe; do put new/$name.key /tls/silo/$name.key; put new/$name.pem /tls/silo/$name.pem; done
for suffix in key pem; do put new/client.$suffix /tls/$2/client.$suffix; done
for side in silo "$2"; do put new/ca.pem /tls/$side/ca.pem; done
"""


@dataclass(frozen=True)
class Watched:
    """A demo, one of its silos, and what its user reads of it.

    Attributes:
        silo: its service; network: that it shares with the client.
        screen: service whose lines the user reads, all of them or those that begin with `mark`.
        checked: services with a health check.
        certificates: volume of the silo's.
        client_certificates: folder of the client's for this silo, in its volume.
        bystander: another silo, which is to go on whatever happens to this one.
    """

    demo: Composition
    screen: str = "application"
    silo: str = "silo"
    network: str = "between"
    checked: tuple[str, ...] = ("silo", "daemon")
    certificates: str = "silo-tls"
    client_certificates: str = "client"
    mark: str = ""
    bystander: Watched | None = None

    def goes_on(self, more: int = 2) -> None:
        """Wait for more answers, and for health."""
        self.answers_grow(more)
        for service in self.checked:
            wait_until(lambda service=service: self.demo.health(service) == "healthy", f"{service} healthy")  # type: ignore[misc]

    def answers_grow(self, more: int = 2) -> None:
        """Wait for more answers."""
        seen = len(self._lines(answers=True))
        wait_until(lambda: len(self._lines(answers=True)) >= seen + more, f"{more} more answers")

    def complains(self, seen: int) -> None:
        """Wait until the user is told that there is no answer; another silo goes on meanwhile."""
        wait_until(lambda: len(self._lines(answers=False)) > seen, "the user is told that there is no answer")
        print(self._lines(answers=False)[seen])
        if self.bystander is not None:
            self.bystander.answers_grow()

    def complaints(self) -> int:
        """Return how often the user was told that there is no answer."""
        return len(self._lines(answers=False))

    def _lines(self, *, answers: bool) -> list[str]:
        lines = [line for line in self.demo.lines(self.screen) if line.startswith(self.mark)]
        return [line for line in lines if (_NO_ANSWER in line) is not answers]


def kill(watched: Watched) -> None:
    """End the silo's process by SIGKILL."""
    demo, silo = watched.demo, watched.silo
    before = demo.inspected(silo)["RestartCount"]
    kill_process(demo.container(silo))
    if watched.bystander is not None:
        watched.bystander.answers_grow()
    wait_until(lambda: demo.inspected(silo)["RestartCount"] > before, "the silo restarted")
    watched.goes_on()


def partition(watched: Watched) -> None:
    """Take the silo from its network, and put it back."""
    demo, seen = watched.demo, watched.complaints()
    with cut_off(f"{demo.project}_{watched.network}", demo.container(watched.silo), watched.silo):
        watched.complains(seen)
        if "daemon" in watched.checked:
            wait_until(lambda: demo.health("daemon") == "unhealthy", "the daemon is not healthy: no call would work")
    watched.goes_on()


def fill(watched: Watched, volume: Path) -> None:
    """Fill the silo's volume, and make room again."""
    seen = watched.complaints()
    with filled(volume):
        # Rows are counted before the work, and what cannot be counted is not done.
        watched.complains(seen)
        assert "the disk is full" in watched.demo.run("logs", "--no-log-prefix", "--tail", "20", watched.silo)
    watched.goes_on()


def restart_all(watched: Watched) -> None:
    """End the demo and start it again, with its volumes."""
    watched.demo.down()
    watched.demo.up()
    watched.goes_on()


def rotate(watched: Watched) -> None:
    """Replace the authority and every certificate of silo and client, then have them meet anew."""
    demo, project = watched.demo, watched.demo.project
    volumes = [f"{project}_{watched.certificates}:/tls/silo", f"{project}_client-tls:/tls/client"]
    options = ["--rm", "--network", "none", "--entrypoint", "bash", *(f"--volume={volume}" for volume in volumes)]
    image = str(demo.inspected(watched.silo)["Config"]["Image"])
    docker("run", *options, image, "-c", _ROTATE, "rotate", watched.silo, watched.client_certificates)
    watched.answers_grow()
    docker("restart", "--time", "10", demo.container(watched.silo))
    watched.goes_on()
