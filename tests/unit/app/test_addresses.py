"""Addresses are read in one way, or refused with one clear error."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sealign.app.addresses import ListenAddress, PeerAddress, parse_address, parse_host, parse_trusted_peer
from sealign.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "canonical", "local"),
    [
        ("127.0.0.1:7443", "127.0.0.1:7443", True),
        ("[::1]:7443", "[::1]:7443", True),
        ("[0:0:0:0:0:0:0:1]:7443", "[::1]:7443", True),
        ("localhost:0", "localhost:0", True),
        ("unix:/run/sealign.sock", "unix:/run/sealign.sock", True),
        ("unix:///run/sealign.sock", "unix:/run/sealign.sock", True),
        ("0.0.0.0:1", "0.0.0.0:1", False),
        ("[::]:65535", "[::]:65535", False),
        ("Silo.Example:443", "silo.example:443", False),
        ("münchen.example:443", "xn--mnchen-3ya.example:443", False),
        ("sealign_silo:443", "sealign_silo:443", False),
        ("127.0.0.2:1", "127.0.0.2:1", True),
    ],
)
def test_addresses_in_canonical_form(text: str, canonical: str, local: bool) -> None:
    address = parse_address(text)
    assert str(address) == canonical
    assert address.is_local is local
    assert parse_address(canonical) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        "localhost:",
        ":7443",
        "::1:7477",
        "::1",
        "[::1]",
        "[127.0.0.1]:1",
        "[]:1",
        "127.0.0.1:99999",
        "localhost:65536",
        "localhost:-1",
        "localhost:7443x",
        "localhost:٣",
        "local host:1",
        "-a.example:1",
        "a..b:1",
        "1.2.3:1",
        "300.1.1.1:1",
        "https://silo.example:443",
        "unix:",
        "unix:sealign.sock",
        "x" * 64 + ".example:1",
        ("a" * 60 + ".") * 5 + "b:1",
        "localhost:1\n",
    ],
)
def test_everything_else_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"must be host:port|absolute path|brackets|neither a host name nor"):
        parse_address(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_comes_back(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    text = f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
    address = parse_address(text)
    assert (ipaddress.ip_address(address.host), address.port, str(address)) == (ip, port, text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_one_error(text: str) -> None:
    try:
        address = parse_address(text)
    except InvalidInputError:
        return
    assert parse_address(str(address)) == address


def test_hosts() -> None:
    assert parse_host("[::1]") == parse_host("0::1") == "::1"
    assert parse_host("localhost") == "localhost"
    for text in ("", "a b", "host:7443", "[localhost]", "."):
        with pytest.raises(InvalidInputError, match="neither a host name nor an IP address"):
            parse_host(text)


def test_fields_of_settings() -> None:
    listen, peer = TypeAdapter(ListenAddress), TypeAdapter(PeerAddress)
    assert listen.validate_python("localhost:0") == "localhost:0"
    assert peer.validate_python("unix:///run/x") == "unix:/run/x"
    with pytest.raises(ValidationError, match="must have a port from 1 to 65535"):
        peer.validate_python("localhost:0")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("dns:Envoy.Silo.Example", "dns:envoy.silo.example"),
        ("uri:spiffe://silo/envoy?a=b", "uri:spiffe://silo/envoy?a=b"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:DB8::/32", "2001:db8::/32"),
    ],
)
def test_peers_to_trust(text: str, canonical: str) -> None:
    assert parse_trusted_peer(text) == parse_trusted_peer(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("envoy.silo.example", "dns:NAME"),
        ("dns:", "dns:NAME"),
        ("dns:*.silo.example", "neither a host name"),
        ("uri:envoy", "dns:NAME"),
        ("uri:spiffe://silo/a b", "dns:NAME"),
        ("192.0.2.7/24", "host bits set"),
        ("0.0.0.0/0", "holds every address"),
        ("::/0", "holds every address"),
        ("", "dns:NAME"),
    ],
)
def test_peers_that_cannot_be_trusted(text: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        parse_trusted_peer(text)
