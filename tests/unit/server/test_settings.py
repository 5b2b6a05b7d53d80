"""Settings of a silo: flags before variables before silo.toml, and faults by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sealign.ckks import SecurityTable
from sealign.errors import InvalidInputError
from sealign_server.settings import CallLimits, ServeSettings, ServingOptions, serve_settings

FILES: dict[str, Any] = {"tls_cert": Path("a.pem"), "tls_key": Path("a.key")}


def test_flag_then_variable_then_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "silo.toml").write_text('max_maps = 1\nworkers = 2\nlisten = "127.0.0.2:1"\nbatch_rows = [1, 8]\n')
    monkeypatch.setenv("SEALIGN_SILO_MAX_MAPS", "10")
    monkeypatch.setenv("SEALIGN_SILO_WORKERS", "20")
    settings = serve_settings(tmp_path, {**FILES, "max_maps": 100, "workers": None})
    assert (settings.max_maps, settings.workers, settings.listen) == (100, 20, "127.0.0.2:1")
    assert settings.batch_rows == (1, 8)
    assert settings.security_table is SecurityTable.CLASSICAL


def test_every_setting_can_be_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "listen": "[::1]:7443",
        "tls_cert": "c.pem",
        "tls_key": "c.key",
        "tls_client_ca": "ca.pem",
        "tokens": "true",
        "token_listen": "[::1]:7445",
        "anonymous": "false",
        "policy": "policy.toml",
        "ledger": "postgresql://ledger",
        "workers": "3",
        "precision": "0.01",
        "security_table": "post_quantum",
        "batch_rows": "[1, 64]",
        "max_batch_weights_mb": "8",
        "max_heads_mb": "100",
        "max_keys_mb": "5",
        "zeros_per_key": "0",
        "max_concurrent": "2",
        "max_connections": "5",
        "max_streams": "4",
        "max_rows": "100",
        "max_rows_per_day": "1000",
        "max_releases": "2",
        "max_maps": "3",
        "max_maps_per_day": "4",
        "max_alignments": "2",
        "generation_precision": "0.25",
        "max_tokens": "99",
        "alignment_seconds": "30",
        "alignment_memory_mb": "256",
        "undelivered_hours": "2",
        "share_examples": "true",
        "fit_heads": "false",
        "ood_directions": "16",
        "message_seconds": "5",
        "idle_seconds": "6",
        "drain_seconds": "0.5",
        "audit_file_mb": "8",
        "otlp_endpoint": "http://127.0.0.1:4317",
        "metrics_listen": "127.0.0.1:7444",
        "trusted_proxies": "192.0.2.7",
        "log_level": "debug",
    }
    assert set(values) == set(ServeSettings.model_fields)
    for name, value in values.items():
        monkeypatch.setenv(f"SEALIGN_SILO_{name.upper()}", value)
    settings = serve_settings(tmp_path, {})
    serving, calls = settings.serving(), settings.calls()
    assert serving == ServingOptions(
        precision=0.01,
        security_table=SecurityTable.POST_QUANTUM,
        batch_rows=(1, 64),
        batch_bytes=8 << 20,
        fit_heads=False,
        ood_directions=16,
        heads_bytes=100 << 20,
        generation_precision=0.25,
        max_tokens=99,
        share_examples=True,
        max_releases=2,
        undelivered_hours=2.0,
        alignment_bytes=256 << 20,
        max_alignments=2,
        alignment_seconds=30.0,
        max_maps=3,
        max_maps_per_day=4,
    )
    assert calls == CallLimits(100, 2, 4, 5 << 20, 0, 5.0, 6.0)


def test_defaults_are_those_of_the_domain(tmp_path: Path) -> None:
    settings = serve_settings(tmp_path, FILES)
    assert settings.serving() == ServingOptions()
    assert settings.calls() == CallLimits()
    assert len(fields(ServingOptions)) + len(fields(CallLimits)) < len(ServeSettings.model_fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "7443"),
        ("listen", "host:"),
        ("listen", "host:65536"),
        ("workers", 0),
        ("workers", "many"),
        ("precision", 0),
        ("precision", -1),
        ("precision", float("nan")),
        ("precision", float("inf")),
        ("security_table", "none"),
        ("batch_rows", ()),
        ("batch_rows", (0,)),
        ("max_keys_mb", 0),
        ("max_concurrent", 0),
        ("max_rows_per_day", 0),
        ("zeros_per_key", -1),
        ("drain_seconds", -1),
        ("ood_directions", -1),
        ("max_maps", 0),
    ],
)
def test_faults_are_named(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=rf"Setting {name}"):
        serve_settings(tmp_path, {**FILES, name: value})


def test_a_misspelt_setting_never_turns_a_protection_off(tmp_path: Path) -> None:
    """The old silo loaded ``tls_client_caa = …`` without a word, and asked nobody for a certificate."""
    (tmp_path / "silo.toml").write_text('tls_client_caa = "ca.pem"\n')
    with pytest.raises(InvalidInputError, match="tls_client_caa"):
        serve_settings(tmp_path, FILES)


@pytest.mark.parametrize("listen", ["0.0.0.0:7443", "[::]:7443", "silo.example:7443", "192.0.2.1:1"])
def test_who_may_call_is_said_where_others_can_connect(tmp_path: Path, listen: str) -> None:
    with pytest.raises(InvalidInputError, match="--tls-client-ca or --tokens, or --anonymous"):
        serve_settings(tmp_path, {**FILES, "listen": listen})
    serve_settings(tmp_path, {**FILES, "listen": listen, "anonymous": True})
    serve_settings(tmp_path, {**FILES, "listen": listen, "tls_client_ca": Path("ca.pem")})
    with pytest.raises(InvalidInputError, match="give one of them"):
        serve_settings(tmp_path, {**FILES, "tls_client_ca": Path("ca.pem"), "anonymous": True})


def test_a_port_for_tokens_is_beside_one_that_demands_certificates(tmp_path: Path) -> None:
    both: dict[str, Any] = {**FILES, "tls_client_ca": Path("ca.pem"), "tokens": True, "token_listen": "0.0.0.0:1"}
    assert serve_settings(tmp_path, both).token_listen
    for missing in ("tls_client_ca", "tokens"):
        with pytest.raises(InvalidInputError, match="give --tokens and --tls-client-ca"):
            serve_settings(tmp_path, {**both, missing: None})


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:7443", "[::1]:7443"])
def test_on_loopback_callers_may_be_anonymous(tmp_path: Path, listen: str) -> None:
    assert serve_settings(tmp_path, {**FILES, "listen": listen}).tls_client_ca is None


def test_proxies_are_known_by_what_they_show(tmp_path: Path) -> None:
    anywhere: dict[str, Any] = {**FILES, "listen": "0.0.0.0:1"}
    by_name: dict[str, Any] = {"trusted_proxies": "dns:Envoy.example, 192.0.2.0/24"}
    known = serve_settings(tmp_path, {**anywhere, **by_name, "tls_client_ca": Path("ca.pem")})
    assert known.trusted_proxies == ("dns:envoy.example", "192.0.2.0/24")
    with pytest.raises(InvalidInputError, match="nobody shows one without --tls-client-ca"):
        serve_settings(tmp_path, {**anywhere, **by_name})
    # Who is known by address alone names every caller, so that nobody is anonymous.
    assert not serve_settings(tmp_path, {**anywhere, "trusted_proxies": "192.0.2.7"}).allows_anonymous
    with pytest.raises(InvalidInputError, match=r"trusted_proxies, entry 1: .*holds every address"):
        serve_settings(tmp_path, {**anywhere, "trusted_proxies": "192.0.2.7,0.0.0.0/0"})
