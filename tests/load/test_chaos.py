"""Short versions of `make chaos`: a silo that is changed and harmed while it serves, and stops when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.load.application import running, wait_for_answers
from tests.load.chaos import Served, change_everything, served
from tests.load.nuisances import NUISANCES, ping_flood, suffering


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, "--drain-seconds", 1) as found:
        yield found


def test_changes_and_harmful_peers_fail_no_call_and_keep_no_silo_from_stopping(found: Served) -> None:
    applications = found.applications()
    with running(applications):
        wait_for_answers(applications, 3)
        for _ in range(3):
            change_everything(found)
        wait_for_answers(applications, 3)
        for nuisance in NUISANCES:
            with suffering(nuisance, found.silo.port, found.tls):
                wait_for_answers(applications, 4)
    assert not [fault for application in applications for fault in application.faults]
    assert not found.silo.events("internal error")
    with suffering(ping_flood, found.silo.port, found.tls):  # a worker that was flooded never ended
        assert found.silo.end() == 0
    assert len(found.silo.events("stopped")) == 2
