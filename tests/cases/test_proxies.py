"""Proxy variables, as Docker sets them in every container whose configuration names a proxy."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sealign.errors import UnavailableError
from sealign_client import Client
from tests.support.processes import command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo

NAMES = ("https_proxy", "http_proxy")


@pytest.fixture
def proxy() -> str:
    """Where no proxy answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_loopback_needs_no_proxy(tls: Tls, tmp_path: Path, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_silo(tmp_path / "silo")
    for name in NAMES:
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving("sealign-server", "serve", store.directory, *tls.serve_options, log=tmp_path / "log") as silo:
        with Client(
            tls.client_settings(silo.port, map_directory=tmp_path / "maps"), encoder=client_encoder()
        ) as client:
            client.align(PUBLIC)
            assert client.classify(["query"])
        files = ("--tls-ca", tls.authority.certificate, "--tls-cert", tls.client.certificate)
        address = ("--address", f"localhost:{silo.port}")
        ran = command("sealign-server", "health", *address, *files, "--tls-key", tls.client.key)
        assert (ran.returncode, ran.stdout) == (0, "serving\n"), ran.stderr


def test_a_proxy_before_a_silo_elsewhere_is_named(
    tls: Tls, tmp_path: Path, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, proxy)
    settings = tls.client_settings(7443, map_directory=tmp_path / "maps")
    elsewhere = settings.model_copy(update={"silo": "silo.example:7443", "timeout": 2.0})
    with (
        Client(elsewhere, encoder=client_encoder()) as client,
        pytest.raises(UnavailableError, match="proxy of the variable https_proxy"),
    ):
        client.silo()
