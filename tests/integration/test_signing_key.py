"""A silo with two workers whose operator shows and rotates its key while a client uses it, with canaries."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealign.errors import UntrustedCardError
from sealign_client import Client
from sealign_server.store import AuditTrail, SiloStore
from tests.support.processes import command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo


def printed(*arguments: object) -> str:
    done = command(*map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_clients_follow_a_rotation_and_an_operator_verifies_by_the_key_written_down(tls: Tls, tmp_path: Path) -> None:
    directory = make_silo(tmp_path / "silo").directory
    key = printed("sealign-server", "signing-key", "show", directory)
    maps = tmp_path / "maps"
    options = (*tls.serve_options, "--workers", 2)
    with serving("sealign-server", "serve", directory, *options, log=tmp_path / "log", workers=2) as silo:
        assert {event["signing_key"] for event in silo.events("serving")} == {key}
        settings = tls.client_settings(silo.port, map_directory=maps, canaries=0.5)
        with Client(settings, encoder=client_encoder()) as client:
            client.align(PUBLIC)
            rows = client_encoder().encode([f"text {number}" for number in range(30)])
            client.logits(rows)
            later = printed("sealign-server", "signing-key", "rotate", directory)
            assert later != key
            client.describe(refresh=True)
            for _ in range(5):
                client.logits(rows)
            (report,) = client.canaries()
            assert report.compared > 10
            assert not report.wrong
        assert later in printed("sealign", "silo-keys", "list", "--map-directory", maps)
        named = tls.client_settings(silo.port, map_directory=tmp_path / "others", silo_key=key)
        with Client(named, encoder=client_encoder()) as client:  # given before the rotation
            client.align(PUBLIC)
        (tmp_path / "silo" / "signing" / "keys.json").unlink()  # lost, so that another is made
        with Client(settings, encoder=client_encoder()) as client, pytest.raises(UntrustedCardError, match=later):
            client.logits(rows)
        assert printed("sealign-server", "signing-key", "show", directory) != later


def test_a_trail_is_verified_by_keys_that_followed_one_another(tmp_path: Path) -> None:
    directory = make_silo(tmp_path / "silo").directory
    key = printed("sealign-server", "signing-key", "show", directory)
    for _ in range(2):
        printed("sealign-server", "signing-key", "rotate", directory)
    store = SiloStore(directory)
    AuditTrail(store.audit_path, store.signing).checkpoint()
    assert "those up to 2 are signed" in printed("sealign-server", "audit", "verify", directory, "--key", key)
    refused = command("sealign-server", "audit", "verify", directory, "--key", "0" * 64)
    assert refused.returncode
    assert "none of this silo's" in refused.stderr
    wrong = command("sealign-server", "audit", "verify", directory, "--key", "abc")
    assert "64 hexadecimal digits" in wrong.stderr
    assert f"signing key {store.signing.public.hex()}" in printed("sealign-server", "info", directory)
