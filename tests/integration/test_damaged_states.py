"""Token states whose file was damaged: refused where they are read, on either side, with the file and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealign.errors import StorageError
from sealign.protocol import generation_space
from sealign_client import Client
from tests.support.generation import TASK, loaded, make_silo, model_name, public_set
from tests.support.generation import align as aligned
from tests.support.processes import command, serving
from tests.support.silo import Tls


def flip(path: Path) -> None:
    """Flip one bit in the middle; flipped again, the file is whole."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_silo_names_the_file_and_the_remedy(tls: Tls, tmp_path: Path) -> None:
    directory = tmp_path / "silo"
    aligned(make_silo(directory), loaded("one"), tls.client.subject)
    (public,) = directory.rglob("*.states")
    (rows,) = directory.rglob("*.rows")
    for path, remedy in ((public, "run sealign-server generation add again"), (rows, "let the client align again")):
        flip(path)
        ran = command("sealign-server", "refine", directory, "--task", TASK, "--epochs", "1")
        assert (ran.returncode, str(path) in ran.stderr, remedy in ran.stderr) == (1, True, True), ran.stderr
        ran = command("sealign-server", "doctor", directory)
        assert f"{path} is damaged" in ran.stdout.replace("\n", ""), ran.stdout
        flip(path)
    ran = command("sealign-server", "refine", directory, "--task", TASK, "--epochs", "1")
    assert ran.returncode == 0, ran.stderr


def test_a_client_names_the_file_and_the_remedy(tls: Tls, tmp_path: Path) -> None:
    directory, maps = make_silo(tmp_path / "silo").directory, tmp_path / "maps"
    with (
        serving("sealign-server", "serve", directory, *tls.serve_options, log=tmp_path / "log") as silo,
        Client(tls.client_settings(silo.port, model=model_name("one"), map_directory=maps)) as client,
    ):
        client.align(public_set(), generation_space(TASK))
        (states,) = maps.glob("*.states")
        flip(states)
        with pytest.raises(StorageError, match=r"states is damaged.* Delete it, then read the texts again"):
            client.align(public_set(), generation_space(TASK))
        states.unlink()
        client.align(public_set(), generation_space(TASK))
