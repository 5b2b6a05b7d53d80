"""What is built is what works: source distribution and wheel, installed in a clean environment and run there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACT = sorted(path.name for path in (ROOT / "proto" / "sealign" / "v1").glob("*.proto"))


def run(*command: object, directory: Path) -> str:
    # Without this process's PYTHONPATH: only what was installed counts.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        list(map(str, command)),
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built of the source distribution."""
    pytest.importorskip("hatchling")
    directory = tmp_path_factory.mktemp("built")
    kept = shutil.ignore_patterns(".*", "node_modules", "site", "*-output", "__pycache__", "run", "evaluation-data")
    source = shutil.copytree(ROOT, directory / "source", ignore=kept)
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", directory, directory=source)
    (made,) = directory.glob("*.tar.gz")
    with tarfile.open(made) as archive:
        names = archive.getnames()
        assert {name.rpartition("/")[2] for name in names if name.endswith(".proto")} == set(CONTRACT)
        archive.extractall(directory / "unpacked")  # noqa: S202 - made here
    (unpacked,) = (directory / "unpacked").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, directory=unpacked)
    (made,) = directory.glob("*.whl")
    return made


def test_the_wheel_holds_what_is_read_at_run_time(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(name.rpartition("/")[2] for name in names if name.endswith(".proto")) == CONTRACT
    page = {path.name for path in (ROOT / "client/sealign_client/daemon/page").iterdir() if path.is_file()}
    assert page == {name.rpartition("/")[2] for name in names if name.startswith("sealign_client/daemon/page/")}
    shipped = {path.name for path in (ROOT / "shared/sealign/shipped").iterdir() if path.is_file()}
    assert shipped == {name.rpartition("/")[2] for name in names if name.startswith("sealign/shipped/")}
    assert (
        len([name for name in names if name.endswith("LICENSE.WordNet")]) == 2
    )  # beside the texts, and with the licences
    for package in ("sealign", "sealign_client", "sealign_server"):
        assert f"{package}/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "deploy/"))]


def test_its_commands_run_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "clean", symlinks=True)
    python = tmp_path / "clean" / "bin" / "python"
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", directory=tmp_path).strip()
    )
    # Everything but Sealign comes from this environment; a path file in it, such as that of Sealign itself, does not.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ("--prefix", tmp_path / "clean", "--no-deps", "--no-index", "--quiet", "--ignore-installed")
    run(sys.executable, "-m", "pip", "install", *options, wheel, directory=tmp_path)
    for name in ("sealign", "sealign-server"):
        assert run(tmp_path / "clean" / "bin" / name, "--version", directory=tmp_path).strip()
        assert "Usage: " in run(tmp_path / "clean" / "bin" / name, "--help", directory=tmp_path)
    where = "import sealign, sealign_client, sealign_server; print(sealign.__file__)"
    assert str(packages) in run(python, "-c", where, directory=tmp_path)
    run(tmp_path / "clean" / "bin" / "sealign-server", "certificates", "tls", "--host", "localhost", directory=tmp_path)
    used = "from sealign_client import Client; Client(silo='localhost:1', encoder='use').close()"
    run(python, "-c", used, directory=tmp_path)
