"""An address without a port, with a port out of range or without brackets is refused before anything is opened.

gRPC would take port 443, the port modulo 65,536, or another host: grpc/grpc-node #1736, grpc/grpc #17192.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_BAD = ["::1:7477", "127.0.0.1", "127.0.0.1:99999", "localhost:", ":7443", "[::1]"]


def _refused(*arguments: str) -> str:
    """Return the one line of error of a command that refuses its input."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SEALIGN_")}
    command = [sys.executable, "-m", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=variables)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert ran.stderr.count("\n") == 1
    return ran.stderr


@pytest.mark.parametrize("address", _BAD)
def test_addresses_of_a_health_probe(tmp_path: Path, address: str) -> None:
    authority = str(tmp_path / "ca.pem")
    assert "ddress " in _refused("sealign_server", "health", "--address", address, "--tls-ca", authority)


@pytest.mark.parametrize("address", _BAD)
def test_addresses_that_a_silo_cannot_listen_on(tmp_path: Path, address: str) -> None:
    arguments = ("serve", str(tmp_path), "--tls-cert", "a", "--tls-key", "b", "--listen", address)
    assert f"Address {address!r} must" in _refused("sealign_server", *arguments)


@pytest.mark.parametrize("address", _BAD)
def test_addresses_that_a_daemon_cannot_listen_on(address: str) -> None:
    assert f"Address {address!r} must" in _refused(
        "sealign_client", "daemon", "--silo", "localhost:7443", "--encoder", "use", "--listen", address
    )


@pytest.mark.parametrize("address", [*_BAD, "localhost:0"])
def test_addresses_that_a_client_cannot_reach(address: str) -> None:
    assert f"Address {address!r} must" in _refused("sealign_client", "tasks", "--encoder", "use", "--silo", address)


@pytest.mark.parametrize("host", ["host:7443", "", "a b", "1.2.3"])
def test_hosts_that_no_client_can_match(tmp_path: Path, host: str) -> None:
    assert f"Host {host!r} is neither a host name nor an IP address" in _refused(
        "sealign_server", "certificates", str(tmp_path), "--host", host
    )
    assert not list(tmp_path.iterdir())


def test_hosts_in_other_alphabets_and_in_brackets(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sealign_server", "certificates", str(tmp_path)]
    command += ["--host", "münchen.example", "--host", "[::1]"]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate((tmp_path / "silo.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["xn--mnchen-3ya.example", "::1"]
