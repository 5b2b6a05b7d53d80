"""Which code a result was measured with."""

from __future__ import annotations

from collections.abc import Sequence, Set
from hashlib import sha256
from importlib.resources import files


def code_digest(packages: Sequence[str], left_out: Set[str] = frozenset()) -> str:
    """Return a digest of the modules in packages of the library, but those that decide no result.

    Args:
        packages: paths below the library; packages within them are not looked into.
        left_out: names of modules.
    """
    sha = sha256()
    for package in packages:
        for file in sorted(files("sealign").joinpath(package).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py") and file.name.removesuffix(".py") not in left_out:
                sha.update(file.read_bytes())
    return sha.hexdigest()
