"""The demo of two silos, as its user sees it: `docker compose -f deploy/compose.two-silos.yaml up`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.containers import Composition, wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    demo = Composition("compose.two-silos.yaml", tmp_path_factory.mktemp("screen") / "screen")
    with demo.running():
        wait_until(lambda: len(_sums(demo)) == 2, "both silos' sums")
        yield demo


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
    for one, other in (("newswire", "reviews"), ("reviews", "newswire")):
        assert demo.reaches(one, demo.address(one, one), 7443)
        assert not demo.reaches(one, other, 7443)
        assert not demo.reaches(one, demo.address(other, other), 7443)
