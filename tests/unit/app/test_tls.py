"""Certificates and keys from files are refused early and by name."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID

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
    assert identity.days_left() > 0


def test_an_expired_certificate(authority: Authority) -> None:
    issued = authority.issue("old", "localhost", expired=True)
    with pytest.raises(AuthenticationError, match=r"old\.pem is valid from .* UTC\. It is now .* UTC\. Renew"):
        load_identity(issued.certificate, issued.key)
    with pytest.raises(AuthenticationError, match="Renew the certificate"):
        load_authorities(issued.certificate)


def test_a_key_that_does_not_belong(authority: Authority) -> None:
    one, other = authority.issue("one", "localhost"), authority.issue("other", "localhost")
    with pytest.raises(InvalidInputError, match=r"other\.key does not belong to certificate .*one\.pem"):
        load_identity(one.certificate, other.key)


def test_files_that_are_missing_or_something_else(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue("good", "localhost")
    with pytest.raises(InvalidInputError, match=r"Could not read certificate file .*nowhere\.pem"):
        load_identity(tmp_path / "nowhere.pem", issued.key)
    with pytest.raises(InvalidInputError, match="Could not read private key file"):
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


def test_a_bundle_works_by_its_valid_entries(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, bundle = authority.issue("old", "localhost", expired=True), tmp_path / "bundle.pem"
    good = authority.certificate.read_bytes()
    bundle.write_bytes(b"\xef\xbb\xbf" + old.certificate.read_bytes() + b"# comment\r\n" + good)
    assert load_authorities(bundle) == good
    assert "Certificate 1 of" in caplog.text
    assert "It is ignored. Remove it." in caplog.text


def test_a_damaged_entry_is_named(authority: Authority, tmp_path: Path) -> None:
    bundle, good = tmp_path / "bundle.pem", authority.certificate.read_bytes()
    lines = good.splitlines(keepends=True)
    bundle.write_bytes(good + b"".join([*lines[:2], *lines[3:]]))
    with pytest.raises(InvalidInputError, match=r"Certificate 2 of .*bundle\.pem is damaged"):
        load_authorities(bundle)


def test_a_renewed_certificate_below_the_old_one(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    issued = authority.issue("silo", "localhost")
    good = issued.certificate.read_bytes()
    key = serialization.load_pem_private_key(issued.key.read_bytes(), password=None)
    issued.certificate.write_bytes(_expired(key) + good)
    identity = load_identity(issued.certificate, issued.key)
    assert identity.certificate == good
    assert "Certificate 1 of" in caplog.text


def test_a_byte_order_mark_before_certificate_and_key(authority: Authority) -> None:
    issued = authority.issue("silo", "localhost")
    good = issued.certificate.read_bytes(), issued.key.read_bytes()
    for path, content in zip((issued.certificate, issued.key), good, strict=True):
        path.write_bytes(b"\xef\xbb\xbf" + content)
    identity = load_identity(issued.certificate, issued.key)
    assert (identity.certificate, identity.key) == good


def test_warnings_about_expiry_and_an_open_key(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    issued = authority.issue("silo", "localhost")
    issued.key.chmod(0o640)
    load_identity(issued.certificate, issued.key)
    assert caplog.text == ""
    issued.key.chmod(0o644)
    key = serialization.load_pem_private_key(issued.key.read_bytes(), password=None)
    issued.certificate.write_bytes(_expired(key, days_left=3))
    identity = load_identity(issued.certificate, issued.key)
    assert 2.9 < identity.days_left() <= 3
    assert "3.0 days from now. Renew it." in caplog.text
    assert "can be read by every user of this machine. Run chmod 600" in caplog.text


def _expired(key: PrivateKeyTypes, days_left: float = -1) -> bytes:
    """A certificate of a key, signed by itself, that ends so many days from now."""
    assert isinstance(key, EllipticCurvePrivateKey)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "silo")]), datetime.now(timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=30))
    certificate = builder.not_valid_after(now + timedelta(days=days_left)).sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)
