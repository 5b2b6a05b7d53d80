"""Certificates and keys from files are refused early and by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sealign.app.tls import load_authorities, load_identity
from sealign.errors import AuthenticationError, InvalidInputError
from tests.support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_good_identity(authority: Authority) -> None:
    issued = authority.issue("good", "localhost")
    identity = load_identity(issued.certificate, issued.key)
    assert identity.certificate == issued.certificate.read_bytes()
    assert load_authorities(authority.certificate) == authority.certificate.read_bytes()


def test_an_expired_certificate(authority: Authority) -> None:
    issued = authority.issue("old", "localhost", expired=True)
    with pytest.raises(AuthenticationError, match=r"old\.pem is valid from .* UTC, and it is now .*: renew it"):
        load_identity(issued.certificate, issued.key)
    with pytest.raises(AuthenticationError, match="renew it"):
        load_authorities(issued.certificate)


def test_a_key_that_does_not_belong(authority: Authority) -> None:
    one, other = authority.issue("one", "localhost"), authority.issue("other", "localhost")
    with pytest.raises(InvalidInputError, match=r"other\.key does not belong to certificate .*one\.pem"):
        load_identity(one.certificate, other.key)


def test_files_that_are_missing_or_something_else(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue("good", "localhost")
    with pytest.raises(InvalidInputError, match=r"could not read certificate file .*nowhere\.pem"):
        load_identity(tmp_path / "nowhere.pem", issued.key)
    with pytest.raises(InvalidInputError, match="could not read private key file"):
        load_identity(issued.certificate, tmp_path)
    with pytest.raises(InvalidInputError, match="holds no certificate in PEM form"):
        load_identity(issued.key, issued.key)
    with pytest.raises(InvalidInputError, match="is not an unencrypted private key"):
        load_identity(issued.certificate, issued.certificate)
    with pytest.raises(InvalidInputError, match="holds no certificate"):
        load_authorities(issued.key)


def test_a_key_under_a_passphrase(authority: Authority) -> None:
    issued = authority.issue("good", "localhost")
    key = serialization.load_pem_private_key(issued.key.read_bytes(), password=None)
    issued.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"correct horse"),
        )
    )
    with pytest.raises(InvalidInputError, match="is not an unencrypted private key"):
        load_identity(issued.certificate, issued.key)
