"""Settings of a client: arguments before variables before the file, and faults by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sealign.errors import InvalidInputError
from sealign_client import Client, ClientSettings, client_settings


def test_argument_then_variable_then_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sealign.toml"
    file.write_text('silo = "file:1"\nencoder = "file"\ntimeout = 1\n')
    monkeypatch.setenv("SEALIGN_CLIENT_SILO", "variable:2")
    monkeypatch.setenv("SEALIGN_CLIENT_ENCODER", "variable")
    settings = client_settings(file, silo="argument:3", encoder=None)
    assert (settings.silo, settings.encoder, settings.timeout) == ("argument:3", "variable", 1.0)


def test_every_setting_can_be_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "silo": "silo.example:7443",
        "encoder": "use",
        "model": "gpt2",
        "tls_ca": "ca.pem",
        "tls_cert": "c.pem",
        "tls_key": "c.key",
        "silo_token": "sealign_secret",
        "silo_key": "0" * 64,
        "key_directory": "keys",
        "key_passphrase": "correct horse",
        "map_directory": "maps",
        "register_maps": "false",
        "recentring": "recentring.safetensors",
        "placement": "client",
        "canaries": "0.02",
        "canary_alarm": "refuse",
        "security_table": "post_quantum",
        "timeout": "2.5",
        "otlp_endpoint": "http://127.0.0.1:4317",
        "listen": "127.0.0.1:7450",
        "http": "127.0.0.1:7451",
        "http_hosts": "daemon.internal",
        "http_origins": "https://app.example",
        "token_file": "token",
        "log_level": "debug",
    }
    assert set(values) == set(ClientSettings.model_fields) - {"silo_token_file"}  # in place of silo_token
    for name, value in values.items():
        monkeypatch.setenv(f"SEALIGN_CLIENT_{name.upper()}", value)
    settings = client_settings()
    assert (settings.silo, settings.tls_ca, settings.timeout) == ("silo.example:7443", Path("ca.pem"), 2.5)
    assert (settings.register_maps, settings.recentring) == (False, Path("recentring.safetensors"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("silo", "no-port"),
        ("silo", ":7443"),
        ("encoder", ""),
        ("security_table", "none"),
        ("timeout", 0),
        ("timeout", "soon"),
    ],
)
def test_faults_are_named(name: str, value: object) -> None:
    fields: dict[str, Any] = {"silo": "silo.example:7443"} | {name: value}
    with pytest.raises(InvalidInputError, match=rf"cannot be used.*{name}"):
        client_settings(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"silo": "silo"}, "Setting silo: Address 'silo' must be host:port"),
        ({}, "Setting silo is missing"),
        ({"silo": "silo:1", "timeuot": 3}, "no setting timeuot: did you mean setting timeout"),
        ({"silo": "silo:1", "key_passphrase": ""}, "Setting key_passphrase"),
        ({"silo": "silo:1", "tls_key": "k.pem"}, "tls_cert and tls_key go together"),
    ],
)
def test_settings_that_are_made_directly_raise_the_same(fields: dict[str, Any], message: str) -> None:
    for make in (ClientSettings, client_settings):
        with pytest.raises(InvalidInputError, match=message):
            make(**fields)


def test_a_missing_silo_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"silo"):
        client_settings()


def test_settings_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no settings file"):
        client_settings(tmp_path / "nowhere.toml")
    file = tmp_path / "sealign.toml"
    file.write_text("silo: silo.example:7443\n")
    with pytest.raises(InvalidInputError, match=r"sealign\.toml.*line 1"):
        client_settings(file)


def test_the_passphrase_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALIGN_CLIENT_KEY_PASSPHRASE", "correct horse")
    assert "horse" not in repr(client_settings(silo="silo.example:7443"))
    with pytest.raises(InvalidInputError) as caught:
        client_settings(silo="no-port")
    assert "horse" not in str(caught.value)


def test_what_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="nonsense"):
        Client(silo="silo.example:7443", encoder="use", nonsense=1)
    with pytest.raises(InvalidInputError, match="not both: timeout"):
        Client(client_settings(silo="silo.example:7443", encoder="use"), timeout=3)
    with pytest.raises(InvalidInputError, match="tls_cert and tls_key go together"):
        client_settings(silo="silo.example:7443", tls_cert="c.pem")
    with pytest.raises(InvalidInputError, match="Name the local encoder"):
        Client(silo="silo.example:7443")
