"""An empty variable is not set, and no program reads another's variables.

Compose files render an unset ``${VARIABLE}`` as an empty string: IBM/mcp-context-forge #6122, londonaicentre/FLIP
#1233, pydantic/pydantic-settings #198.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sealign.errors import InvalidInputError
from sealign_client.settings import ClientSettings, client_settings
from sealign_server.settings import ServeSettings, serve_settings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SEALIGN_"):
            monkeypatch.delenv(name)


def test_empty_variables_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = client_settings(silo="localhost:7443")
    for name in ClientSettings.model_fields:
        monkeypatch.setenv(f"SEALIGN_CLIENT_{name.upper()}", "")
    assert client_settings(silo="localhost:7443") == expected
    assert expected.key_directory is None
    assert expected.key_passphrase is None
    with pytest.raises(InvalidInputError, match="Setting silo is missing"):
        client_settings()


def test_empty_variables_of_a_silo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = {"tls_cert": tmp_path / "silo.pem", "tls_key": tmp_path / "silo.key"}
    expected = serve_settings(tmp_path, certificate)
    for name in ServeSettings.model_fields:
        monkeypatch.setenv(f"SEALIGN_SILO_{name.upper()}", "")
    assert serve_settings(tmp_path, certificate) == expected


def test_a_silo_in_a_clients_shell_does_not_take_the_clients_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEALIGN_CLIENT_TLS_CERT", "client.pem")
    monkeypatch.setenv("SEALIGN_CLIENT_TLS_KEY", "client.key")
    with pytest.raises(InvalidInputError, match=r"Setting tls_cert is missing.*Setting tls_key is missing"):
        serve_settings(tmp_path, {})


def test_a_list_in_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = {"tls_cert": tmp_path / "silo.pem", "tls_key": tmp_path / "silo.key"}
    for text in ("1,32", "[1, 32]", " 1 , 32 "):
        monkeypatch.setenv("SEALIGN_SILO_BATCH_ROWS", text)
        assert serve_settings(tmp_path, certificate).batch_rows == (1, 32)
    monkeypatch.setenv("SEALIGN_SILO_BATCH_ROWS", "[1, 32")
    with pytest.raises(InvalidInputError, match="SEALIGN_SILO_BATCH_ROWS is neither JSON nor separated by commas"):
        serve_settings(tmp_path, certificate)
