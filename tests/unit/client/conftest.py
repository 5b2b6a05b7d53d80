"""A small silo on raw stubs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakesilo import Address, FakeSilo, serving_fake, silo_files


@pytest.fixture
def fake() -> FakeSilo:
    return FakeSilo()


@pytest.fixture
def address(fake: FakeSilo, tmp_path: Path) -> Iterator[Address]:
    with serving_fake(fake, *silo_files(tmp_path)) as address:
        yield address
