"""A silo that is told to stop while a head is being fitted gives the fit up."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Thread

import pytest

from sealign.errors import SealignError
from sealign_client import Client
from tests.support.processes import serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo

SLOW = """#!{python}
import sys, time
from pathlib import Path
from sealign_server.serving import served_tasks

def slow(*arguments):
    Path("{begun}").touch()
    time.sleep(120)
    Path("{ended}").touch()

served_tasks._calibrated = slow
if __name__ == "__main__":
    from sealign_server.cli import main
    main()
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fit_that_has_begun_keeps_no_silo_from_stopping(tls: Tls, tmp_path: Path, workers: int) -> None:
    directory = make_silo(tmp_path / "silo").directory
    begun, ended, program = (tmp_path / name for name in ("begun", "ended", "slow-server"))
    program.write_text(SLOW.format(python=sys.executable, begun=begun, ended=ended))
    program.chmod(0o700)
    options = (*tls.serve_options, "--drain-seconds", 1, "--workers", workers)
    with serving(str(program), "serve", directory, *options, log=tmp_path / "log", workers=workers) as silo:
        settings = tls.client_settings(silo.port, map_directory=tmp_path / "maps", timeout=3)
        with Client(settings, encoder=client_encoder()) as client:
            client.align(PUBLIC)

            def ask() -> None:
                with pytest.raises(SealignError):  # the silo goes away
                    client.describe(refresh=True)

            asking = Thread(target=ask)
            asking.start()
            while not begun.exists():
                asking.join(0.05)
                assert asking.is_alive()
            assert silo.end() == 0
            assert not ended.exists()
            assert {event["unfinished_work"] for event in silo.events("stopped")} >= {True}
