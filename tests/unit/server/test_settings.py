"""Settings of a silo: flags before variables before silo.toml, and faults by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sealign.ckks import SecurityTable
from sealign.errors import InvalidInputError
from sealign_server.settings import ServeSettings, serve_settings

FILES: dict[str, Any] = {"tls_cert": Path("a.pem"), "tls_key": Path("a.key")}


def test_flag_then_variable_then_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "silo.toml").write_text('max_keys = 1\nworkers = 2\nlisten = "0.0.0.0:1"\nbatch_rows = [1, 8]\n')
    monkeypatch.setenv("SEALIGN_MAX_KEYS", "10")
    monkeypatch.setenv("SEALIGN_WORKERS", "20")
    settings = serve_settings(tmp_path, {**FILES, "max_keys": 100, "workers": None})
    assert (settings.max_keys, settings.workers, settings.listen) == (100, 20, "0.0.0.0:1")
    assert settings.batch_rows == (1, 8)
    assert settings.security_table is SecurityTable.CLASSICAL


def test_every_setting_can_be_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "listen": "[::1]:7443",
        "tls_cert": "c.pem",
        "tls_key": "c.key",
        "tls_client_ca": "ca.pem",
        "workers": "3",
        "precision": "0.01",
        "security_table": "post_quantum",
        "batch_rows": "[1, 64]",
        "max_batch_weights_mb": "8",
        "max_keys": "5",
        "zeros_per_key": "0",
        "max_concurrent": "2",
        "max_releases": "2",
        "generation_precision": "0.25",
        "max_tokens": "99",
        "alignment_seconds": "30",
        "alignment_memory_mb": "256",
        "product_hours": "2",
        "release_texts": "true",
        "fit_heads": "false",
        "ood_directions": "16",
        "max_maps": "3",
        "drain_seconds": "0.5",
        "log_level": "debug",
    }
    assert set(values) == set(ServeSettings.model_fields)
    for name, value in values.items():
        monkeypatch.setenv(f"SEALIGN_{name.upper()}", value)
    settings = serve_settings(tmp_path, {})
    assert settings.security_table is SecurityTable.POST_QUANTUM
    assert settings.batch_rows == (1, 64)
    assert (settings.zeros_per_key, settings.drain_seconds) == (0, 0.5)
    assert (settings.product_hours, settings.release_texts) == (2.0, True)
    assert (settings.fit_heads, settings.ood_directions, settings.max_maps) == (False, 16, 3)


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
        ("security_table", "none"),
        ("batch_rows", ()),
        ("batch_rows", (0,)),
        ("max_keys", 0),
        ("max_concurrent", 0),
        ("zeros_per_key", -1),
        ("drain_seconds", -1),
        ("ood_directions", -1),
        ("max_maps", 0),
    ],
)
def test_faults_are_named(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=rf"the settings are not usable: {name}"):
        serve_settings(tmp_path, {**FILES, name: value})


def test_faults_in_variables_and_files_are_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"tls_cert: Field required; tls_key: Field required.*SEALIGN_…"):
        serve_settings(tmp_path, {})
    monkeypatch.setenv("SEALIGN_WORKERS", "-1")
    with pytest.raises(InvalidInputError, match="workers"):
        serve_settings(tmp_path, FILES)
    monkeypatch.delenv("SEALIGN_WORKERS")
    (tmp_path / "silo.toml").write_text("workers = 0\n")
    with pytest.raises(InvalidInputError, match="workers"):
        serve_settings(tmp_path, FILES)


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / "silo.toml").write_text("workers : 2\n")
    with pytest.raises(InvalidInputError, match=r"silo\.toml or a SEALIGN_… variable is malformed.*line 1"):
        serve_settings(tmp_path, FILES)


def test_a_variable_that_is_not_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALIGN_BATCH_ROWS", "1, 64 rows")
    with pytest.raises(InvalidInputError, match="batch_rows"):
        serve_settings(tmp_path, FILES)
