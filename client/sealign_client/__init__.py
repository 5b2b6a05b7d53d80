"""Sealign's client: the SDK, the daemon and the command line."""

from sealign_client.client import AsyncClient, Client
from sealign_client.results import Classification, Timing
from sealign_client.settings import ClientSettings, client_settings

__all__ = ["AsyncClient", "Classification", "Client", "ClientSettings", "Timing", "client_settings"]
