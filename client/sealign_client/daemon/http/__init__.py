"""The HTTP interface of the daemon: an application's endpoints, and a page for people."""

from sealign_client.daemon.http.access import Access
from sealign_client.daemon.http.app import OPERATIONS, http_app
from sealign_client.daemon.http.backend import Backend
from sealign_client.daemon.http.operations import Service
from sealign_client.daemon.http.options import HttpOptions
from sealign_client.daemon.http.server import HttpServer

__all__ = ["OPERATIONS", "Access", "Backend", "HttpOptions", "HttpServer", "Service", "http_app"]
