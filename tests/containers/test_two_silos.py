"""The demo of two silos, as its user sees it: `docker compose -f deploy/compose.two-silos.yaml up`.

Whatever happens to one silo, the other goes on. Every test leaves the demo as it found it, running.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers import faults
from tests.containers.faults import Watched
from tests.support.containers import Builds, Composition, small_volume, wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

FILE = "compose.two-silos.yaml"


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A small volume for the directory of the silo of newswire, and the compose file that says so."""
    with small_volume("newswire", tmp_path_factory.mktemp("small"), 64) as found:
        yield found


@pytest.fixture(scope="module")
def demo(builds: Builds, volume: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    demo = Composition(FILE, tmp_path_factory.mktemp("screen") / "screen", volume[1])
    builds.wait(FILE)
    with demo.running():
        wait_until(lambda: len(_sums(demo)) == 2, "both silos' sums")
        yield demo


@pytest.fixture
def watched(demo: Composition) -> Watched:
    """The silo of newswire, beside that of reviews."""
    return _seen(demo, "newswire", _seen(demo, "reviews"))


def _seen(demo: Composition, silo: str, bystander: Watched | None = None) -> Watched:
    return Watched(
        demo,
        screen="client",
        silo=silo,
        network=silo,
        checked=("newswire", "reviews"),
        certificates=f"{silo}-tls",
        client_certificates=f"client/{silo}",
        mark=f"{silo} ",
        bystander=bystander,
    )


def _sums(demo: Composition) -> dict[str, tuple[int, int]]:
    """Return how many labels are right, and of how many, by silo."""
    found = (
        re.fullmatch(r"(\w+): (\d+) of (\d+) labels are those of the table", line) for line in demo.lines("client")
    )
    return {match[1]: (int(match[2]), int(match[3])) for match in found if match}


def test_one_client_uses_both(demo: Composition) -> None:
    print(_sums(demo))
    right, of = _sums(demo)["newswire"]
    assert of == 24
    assert right >= 12  # of eight topics
    right, of = _sums(demo)["reviews"]
    assert of == 12
    assert right >= 7  # of two
    labels = {line.split()[1] for line in demo.lines("client") if line.startswith("reviews ")}
    assert labels <= {"positive", "negative"}


def test_silos_do_not_reach_each_other(demo: Composition) -> None:
    silos = ("newswire", "reviews")
    assert all(demo.reaches(silo, demo.address(silo, silo), 7443) for silo in silos)
    ways = [(one, host, 7443) for one, other in (silos, silos[::-1]) for host in (other, demo.address(other, other))]
    assert demo.reached(ways) == []


@pytest.mark.parametrize("fault", [faults.kill, faults.partition, faults.rotate, faults.restart_all])
def test_a_fault_is_said_and_ends(watched: Watched, fault: Callable[[Watched], None]) -> None:
    fault(watched)


def test_a_full_volume_is_said_and_ends(watched: Watched, volume: tuple[Path, Path]) -> None:
    faults.fill(watched, volume[0])
