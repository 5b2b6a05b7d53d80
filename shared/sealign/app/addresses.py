"""Addresses of gRPC and HTTP: ``host:port``, ``[v6]:port`` and ``unix:/path``, read in one place."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from sealign.errors import InvalidInputError

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables that gRPC looks at, in its order."""
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True)
class Address:
    """Where something listens.

    Attributes:
        host: name in lower case, IDNA for other than ASCII, or an IP address without brackets; empty for a socket.
        port: TCP port; 0 for a socket, and for any free port.
        path: absolute path of a Unix socket; empty for TCP.
    """

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: a loopback address, ``localhost`` or a Unix socket."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def proxy_variable(address: Address) -> str | None:
    """Return the variable that makes gRPC ask a proxy for an address; None where it connects by itself."""
    name = next((name for name in _PROXIES if os.environ.get(name)), None)
    if name is None or address.is_local:
        return None
    from urllib.request import proxy_bypass  # takes its time to import

    return None if proxy_bypass(address.host) else name


def parse_address(text: str) -> Address:
    """Return the address that a text names; port 0 is allowed.

    Raises:
        InvalidInputError: the text is no address, or has no port from 0 to 65535.
    """
    if text.startswith("unix:"):
        path = re.sub("^//+", "/", text.removeprefix("unix:"))
        if not path.startswith("/") or "\0" in path:
            raise InvalidInputError(f"Address {text!r} must give an absolute path: unix:/run/sealign.sock.")
        return Address("", 0, path)
    found = re.fullmatch(r"(\[(?P<v6>[^\]]*)\]|(?P<name>[^:\[\]]+)):(?P<port>[0-9]{1,5})", text)
    if not found or int(found["port"]) > 65535:
        raise InvalidInputError(
            f"Address {text!r} must be host:port, [IPv6 address]:port or unix:/path, with a port from 0 to 65535."
        )
    host = parse_host(found["name"] if found["v6"] is None else found["v6"])
    if (":" in host) != (found["v6"] is not None):
        raise InvalidInputError(
            f"Address {text!r} must have brackets around an IPv6 address, and around no other host."
        )
    return Address(host, int(found["port"]))


def parse_host(text: str) -> str:
    """Return a host's name in lower case and IDNA, or its IP address in canonical form, without brackets.

    Raises:
        InvalidInputError: the text is neither.
    """
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]") if ":" in text else text))
    except ValueError:
        pass
    try:
        name = text.rstrip(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise InvalidInputError(f"Host {text!r} is neither a host name nor an IP address.")
    return name


def parse_trusted_peer(text: str) -> str:
    """Return, in canonical form, the name or range that says which peers to trust.

    It is ``dns:`` or ``uri:`` and an alternative name of the peers' certificate, or an IP address or CIDR range.

    Raises:
        InvalidInputError: the text is neither, or holds every address.
    """
    kind, _, name = text.partition(":")
    if kind == "dns" and name:
        return f"dns:{parse_host(name)}"
    if kind == "uri" and ":" in name and name.isprintable() and " " not in name:
        return text
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidInputError(
            f"Peer {text!r} must be dns:NAME or uri:NAME of a certificate, an IP address, or a CIDR range: {error}."
        ) from None
    if not network.prefixlen:
        raise InvalidInputError(f"Range {text!r} holds every address: anybody could claim to be anybody. Narrow it.")
    return str(network)


def _listening(text: str) -> str:
    return str(parse_address(text))


def _reachable(text: str) -> str:
    address = parse_address(text)
    if not address.path and not address.port:
        raise InvalidInputError(f"Address {text!r} must have a port from 1 to 65535.")
    return str(address)


ListenAddress = Annotated[str, AfterValidator(_listening)]
"""Text of an address to listen on, in canonical form. Port 0 means any free port."""

PeerAddress = Annotated[str, AfterValidator(_reachable)]
"""Text of an address to connect to, in canonical form."""

TrustedPeer = Annotated[str, AfterValidator(parse_trusted_peer)]
"""Text that says which peers to trust: ``dns:NAME``, ``uri:NAME`` or a CIDR range, in canonical form."""
