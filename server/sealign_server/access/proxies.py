"""Proxies that a silo's operator trusts to say whose calls they pass on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote

from sealign_server.access.certificate_names import alternative_names, certificate_of, identity_of


class TrustedProxies:
    """Peers whose word on their clients counts.

    Args:
        entries: ``dns:`` or ``uri:`` and an alternative name of a proxy's certificate, or an address or CIDR range.
    """

    def __init__(self, entries: Sequence[str] = ()) -> None:
        self._names = frozenset(entry for entry in entries if entry.startswith(("dns:", "uri:")))
        self._networks = tuple(ip_network(entry) for entry in entries if entry not in self._names)

    def name_of(self, auth_context: Mapping[str, Iterable[bytes]], peer: str) -> str | None:
        """Return the name of a proxy, None for a peer that is none.

        It is the identity of its certificate, or without one ``address:`` and its address.

        Args:
            auth_context: gRPC's, of the connection.
            peer: gRPC's name of the other end, for example ``ipv4:192.0.2.1:5000``.
        """
        pem = certificate_of(auth_context)
        address = _address(peer) if self._networks else None
        by_name = bool(self._names) and bool(pem) and not self._names.isdisjoint(_lowered(pem))
        if not by_name and not any(address in network for network in self._networks if address is not None):
            return None
        return identity_of(auth_context) if pem else f"address:{address}"


@lru_cache(maxsize=1024)
def _lowered(pem: bytes) -> tuple[str, ...]:
    return tuple(name.lower() if name.startswith("dns:") else name for name in alternative_names(pem))


@lru_cache(maxsize=1024)
def _address(peer: str) -> IPv4Address | IPv6Address | None:
    """Return the address in gRPC's name of a peer; None for other than IP."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    try:
        found = ip_address(unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
