"""Certificates for trying Sealign out: an authority, a silo and a client, valid for 30 days.

Production certificates come from the organisation's own authority.
"""

from __future__ import annotations

import ipaddress
import secrets
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealign.app.addresses import parse_host
from sealign.files import PUBLIC, write_atomically

_VALID = timedelta(days=30)


def write_trial_certificates(directory: Path, hosts: list[str]) -> None:
    """Write ca.pem, silo.pem, silo.key, client.pem and client.key; the authority's key is not kept.

    Raises:
        InvalidInputError: a host is neither a name nor an IP address.
    """
    hosts = [parse_host(host) for host in hosts]
    authority_key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own, so that two of them can stand in one bundle.
    authority_name = _name(f"Sealign trial authority {secrets.token_hex(4)}")
    authority = (
        _builder(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    write_atomically(directory / "ca.pem", authority.public_bytes(serialization.Encoding.PEM), mode=PUBLIC)
    for who, usage in (("silo", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(f"sealign {who}"), authority_name, key)
            .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(authority_key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(directory / f"{who}.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=PUBLIC)
        write_atomically(directory / f"{who}.key", private)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _VALID)
    )
