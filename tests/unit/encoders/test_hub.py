"""A hub that cannot be reached: noticed before a library tries it again and again, and said in one line."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from sealign.encoders import EncoderSettings, hub
from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.hub import hub_fault
from sealign.errors import InvalidInputError


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process that may ask the hub, and no proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_fault.cache_clear()
    yield monkeypatch
    hub_fault.cache_clear()


@pytest.fixture
def closed() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that answers no connection, as behind a firewall: its queue is full."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_hub_that_does_not_answer_is_asked_for_nothing(
    network: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    network.setattr(constants, "ENDPOINT", f"http://{request.getfixturevalue(kind)}")
    with pytest.raises(InvalidInputError) as caught:
        Checkpoint(EncoderSettings.parse("some-owner/some-model"))
    assert str(caught.value) == (
        "could not load the transformers model 'some-owner/some-model': it is not on this machine, and the hub "
        "127.0.0.1 does not answer. Connect this machine, or download the whole repository and name its directory"
    )
    assert not caplog.records  # the library tells of each attempt


def test_the_proxy_is_named_where_there_is_one(network: pytest.MonkeyPatch, closed: str) -> None:
    network.setattr(constants, "ENDPOINT", "https://hub.example")
    network.setenv("https_proxy", f"http://{closed}")
    assert str(hub_fault()).startswith("the proxy 127.0.0.1 before the hub hub.example does not answer. Check")


def test_a_hub_that_answers_is_asked(network: pytest.MonkeyPatch) -> None:
    network.setattr(hub, "_SECONDS", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        network.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert hub_fault() is None


def test_the_variable_is_named_that_forbids_asking() -> None:
    hub_fault.cache_clear()
    with pytest.raises(InvalidInputError, match=r"HF_HUB_OFFLINE forbids asking the hub\. Unset it, or download"):
        Checkpoint(EncoderSettings.parse("some-owner/some-model"))
