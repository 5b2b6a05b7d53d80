"""The small causal models, trained once a checkout."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

from sealign.encoders.causal import CausalModel
from sealign.errors import InvalidInputError
from tests.support.generation import loaded


def _model(name: str) -> CausalModel:
    try:
        return loaded(name)
    except InvalidInputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def one() -> CausalModel:
    return _model("one")


@pytest.fixture(scope="session")
def two() -> CausalModel:
    return _model("two")


@pytest.fixture(scope="session")
def three() -> CausalModel:
    """Its tokenizer is another than that of the two others."""
    return _model("three")
