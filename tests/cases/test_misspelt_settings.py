"""A misspelt setting does not leave a silo without client certificates: it is refused by name.

After reports that unknown keys of a settings file do nothing, silently: telemt/telemt #760, freenet/freenet-core #5131,
FerroxLabs/wayland #1069.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sealign.errors import InvalidInputError
from sealign_client.settings import client_settings
from sealign_server.settings import serve_settings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SEALIGN_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("text", "unknown", "nearest"),
    [
        ('tls-client-ca = "ca.pem"', "tls-client-ca", "key tls_client_ca"),
        ('tls_clientca = "ca.pem"', "tls_clientca", "key tls_client_ca"),
        ('tls_client_caa = "ca.pem"', "tls_client_caa", "key tls_client_ca"),
        ('[serve]\ntls_client_ca = "ca.pem"', "serve", "remove it"),
    ],
)
def test_a_key_of_the_file(tmp_path: Path, text: str, unknown: str, nearest: str) -> None:
    (tmp_path / "silo.toml").write_text(text)
    with pytest.raises(InvalidInputError, match=rf"There is no key {unknown} of .*silo\.toml: .*{nearest}"):
        serve_settings(tmp_path, {"tls_cert": "silo.pem", "tls_key": "silo.key"})


@pytest.mark.parametrize("name", ["SEALIGN_TLS_CLIENTCA", "SEALIGN_SILO_TLS_CLIENTCA", "SEALIGN_TLS_CLIENT_CA"])
def test_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "ca.pem")
    with pytest.raises(InvalidInputError, match=rf"There is no variable {name}: .*SEALIGN_SILO_TLS_CLIENT_CA"):
        serve_settings(tmp_path, {"tls_cert": "silo.pem", "tls_key": "silo.key"})


def test_every_misspelt_key_is_named_and_nothing_is_served(tmp_path: Path) -> None:
    (tmp_path / "silo.toml").write_text('tls_client_caa = "ca.pem"\nworker = 4\n')
    command = [sys.executable, "-m", "sealign_server", "serve", str(tmp_path), "--tls-cert", "a", "--tls-key", "b"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert "tls_client_caa" in ran.stderr
    assert "did you mean key workers" in ran.stderr


def test_a_keyword_of_the_client() -> None:
    with pytest.raises(InvalidInputError, match="There is no setting tls_caa: did you mean setting tls_ca"):
        client_settings(silo="localhost:7443", tls_caa="ca.pem")
    with pytest.raises(InvalidInputError, match="There is no setting nonsense: remove it"):
        client_settings(silo="localhost:7443", nonsense=1)
