"""The list of cases names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/\S+\.py)::(\w+)`", Path(__file__).with_name("README.md").read_text())


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_case_has_its_test(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (REPOSITORY / file).read_text(), re.MULTILINE)
