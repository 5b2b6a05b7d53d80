"""Certificates for trying Sealign out: an authority, a silo and its clients, valid for 30 days.

Production certificates come from the organisation's own authority.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealign.app.addresses import parse_host
from sealign.errors import InvalidInputError
from sealign.files import PUBLIC, write_atomically

CLIENT = "client"
_VALID = timedelta(days=30)
_CLIENT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def write_trial_certificates(directory: Path, hosts: Sequence[str], clients: Sequence[str] = (CLIENT,)) -> None:
    """Write ca.pem, silo.pem and silo.key, and a certificate and key per client; the authority's key is not kept.

    Args:
        directory: where to write.
        hosts: names and addresses of the silo.
        clients: names of clients, and of their files: client.pem and client.key. Also their DNS names.

    Raises:
        InvalidInputError: a host is neither a name nor an IP address, or a client's name is no DNS name, is given
            twice, or is that of another file here.
    """
    hosts = [parse_host(host) for host in hosts]
    issued = [("silo", hosts, ExtendedKeyUsageOID.SERVER_AUTH)]
    for name in clients:
        if not _CLIENT.fullmatch(name) or name in {"ca", *(who for who, _, _ in issued)}:
            raise InvalidInputError(
                f"Client {name!r} cannot name files. Use small letters, digits and hyphens, each name once; "
                "ca and silo are taken."
            )
        issued.append((name, [name], ExtendedKeyUsageOID.CLIENT_AUTH))
    authority_key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own, so that two of them can stand in one bundle.
    authority_name = _name(f"Sealign trial authority {secrets.token_hex(4)}")
    authority = (
        _builder(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    write_atomically(directory / "ca.pem", authority.public_bytes(serialization.Encoding.PEM), mode=PUBLIC)
    for who, names, usage in issued:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(f"sealign {who}"), authority_name, key)
            .add_extension(x509.SubjectAlternativeName([_host(name) for name in names]), critical=False)
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
