"""Certificates from a test authority, good and bad."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealign_server.access import identity_of


@dataclass(frozen=True)
class Identity:
    """Files of a certificate chain and its key."""

    certificate: Path
    key: Path

    @property
    def subject(self) -> str:
        """The name under which a silo knows the holder."""
        return identity_of({"x509_pem_cert": [self.certificate.read_bytes()]})


class Authority:
    """A certificate authority that writes PEM files into a directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.certificate = directory / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.certificate))

    def issue(self, name: str, *hosts: str, expired: bool = False) -> Identity:
        """A certificate for host names; ``expired`` ended an hour ago."""
        now = datetime.now(timezone.utc)
        days = (now - timedelta(days=2), now - timedelta(hours=1)) if expired else (None, None)
        issued = self._authority.issue_cert(*hosts, common_name=name, not_before=days[0], not_after=days[1])
        identity = Identity(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        identity.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        identity.key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(str(identity.key))
        return identity

    def sign(self, name: str, subject: x509.Name, *names: x509.GeneralName) -> Identity:
        """A certificate for clients with any subject and any alternative names."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
        issuer = x509.load_pem_x509_certificate(self._authority.cert_pem.bytes())
        signer = serialization.load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        number = x509.random_serial_number()
        period = now - timedelta(hours=1), now + timedelta(days=1)
        built = x509.CertificateBuilder(issuer.subject, subject, key.public_key(), number, *period)
        if names:
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))
        identity = Identity(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        identity.certificate.write_bytes(built.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        identity.key.touch(mode=0o600)
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        identity.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        return identity
