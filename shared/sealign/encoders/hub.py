"""Whether the hub can be asked: found out once, within a second, before a library tries it for half a minute."""

from __future__ import annotations

import socket
from functools import cache
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants

_SECONDS = 1.0


@cache
def hub_fault() -> str | None:
    """Return why the hub cannot be asked, and what to do; None if it can be."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids asking the hub. Unset it"
    url = urlsplit(constants.ENDPOINT)
    proxies = {} if proxy_bypass(url.hostname or "") else getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if _accepts(proxy or constants.ENDPOINT):
        return None
    if proxy is not None:
        return f"the proxy {urlsplit(proxy).hostname} before the hub {url.hostname} does not answer. Check the proxy"
    return f"the hub {url.hostname} does not answer. Connect this machine"


def _accepts(address: str) -> bool:
    """Return whether a server of an address accepts a connection within a second."""
    url = urlsplit(address if "//" in address else f"//{address}")
    port = url.port or (80 if url.scheme == "http" else 443)
    accepted = []

    def connect() -> None:
        try:
            socket.create_connection((url.hostname, port), timeout=_SECONDS).close()
        except OSError:
            return
        accepted.append(True)

    # In a thread, since looking up a name takes as long as it wants.
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return bool(accepted)
