"""Both sides' certificates, and their authority, are replaced under a client that goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.x509.oid import NameOID

from sealign_client import Client
from tests.support.certificates import Authority, Identity
from tests.support.processes import serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo


def _issued(directory: Path) -> Tls:
    directory.mkdir()
    authority = Authority(directory)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])  # maps belong to it
    client = authority.sign("client", subject, x509.DNSName("client"))
    return Tls(authority, authority.issue("silo", "localhost", "127.0.0.1"), client)


def _put(new: Identity, used: Identity) -> None:
    shutil.copy2(new.key, used.key)  # for a moment the key of no certificate
    shutil.copy2(new.certificate, used.certificate)


def test_a_client_follows_replaced_certificates_without_a_restart(tmp_path: Path) -> None:
    used, new = _issued(tmp_path / "used"), _issued(tmp_path / "new")
    later, bundle = new.authority.certificate, used.authority.certificate
    directory, rows = make_silo(tmp_path / "silo").directory, client_encoder().encode(["one", "two"])
    serve = ("serve", directory, *used.serve_options)
    with (
        serving("sealign-server", *serve, log=tmp_path / "log") as silo,
        Client(used.client_settings(silo.port), encoder=client_encoder()) as client,
    ):
        client.align(PUBLIC)
        before = client.logits(rows)
        bundle.write_bytes(bundle.read_bytes() + later.read_bytes())
        client.logits(rows)
        _put(new.silo, used.silo)
        shutil.copy2(new.client.key, used.client.key)
        client.logits(rows)  # what cannot be used leaves the connection as it is
        shutil.copy2(new.client.certificate, used.client.certificate)
        client.logits(rows)
        shutil.copy2(later, bundle)
        silo.process.kill()
        silo.process.wait()
        with serving("sealign-server", *serve, "--listen", f"127.0.0.1:{silo.port}", log=tmp_path / "later"):
            assert np.allclose(client.logits(rows), before, atol=1 / 64)
