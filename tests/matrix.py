"""Run ``make unit`` on every Python from 3.10 to 3.14 that this machine has: ``python tests/matrix.py [VERSION ...]``.

Interpreters are found through uv, pyenv and the PATH. A version that is not found, or that ``pyproject.toml``
excludes, is skipped with the reason. The exit status is 1 if one that ran failed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
REPOSITORY = Path(__file__).resolve().parent.parent


def main(versions: tuple[str, ...]) -> int:
    """Run the versions one after the other and print a table."""
    results = {version: result(version) for version in versions}
    for version, outcome in results.items():
        print(f"{version:6} {outcome}")
    return int(any(outcome.startswith("failed") for outcome in results.values()))


def result(version: str) -> str:
    """Return ``passed``, or ``failed`` or ``skipped`` with a reason."""
    if not is_supported(version):
        return "skipped: pyproject.toml excludes it (requires-python)"
    interpreter = find(version)
    if interpreter is None:
        return "skipped: not found by uv, pyenv or the PATH"
    print(f"== {version}: {interpreter}", flush=True)
    make = ["make", "unit", f"PYTHON={interpreter}", f"VENV={REPOSITORY / '.matrix' / version}"]
    status = subprocess.run(make, cwd=REPOSITORY, check=False).returncode
    return "passed" if status == 0 else f"failed: make unit ended with status {status}"


def is_supported(version: str) -> bool:
    """Return whether ``requires-python`` of the project admits a version."""
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    bounds = re.search(r'^requires-python = ">=3\.(\d+)(?:,<3\.(\d+))?"$', project, re.MULTILINE)
    if bounds is None:
        raise SystemExit("requires-python of pyproject.toml is not of the form >=3.A,<3.B; correct tests/matrix.py")
    minor = int(version.partition(".")[2])
    return int(bounds[1]) <= minor and (bounds[2] is None or minor < int(bounds[2]))


def find(version: str) -> str | None:
    """Return the path of an interpreter of a version; None if there is none."""
    pyenv = Path.home() / ".pyenv" / "versions"
    candidates = [
        _output("uv", "python", "find", "--no-python-downloads", version),
        *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), reverse=True),
        shutil.which(f"python{version}"),
    ]
    for candidate in filter(None, candidates):
        if _output(candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == version:
            return candidate
    return None


def _output(*command: str) -> str | None:
    """Return what a command prints; None if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or VERSIONS))
