"""Sealign's client: the SDK, the daemon and the command line."""

from sealign_client.adaptation import Adaptation
from sealign_client.blocking import Client
from sealign_client.client import AsyncClient
from sealign_client.encrypted_alignment import Transfer
from sealign_client.generation import Finish, Forecast, GeneratedToken, TextGenerator
from sealign_client.results import Classification, Timing
from sealign_client.settings import AlignmentMode, ClientSettings, client_settings

__all__ = [
    "Adaptation",
    "AlignmentMode",
    "AsyncClient",
    "Classification",
    "Client",
    "ClientSettings",
    "Finish",
    "Forecast",
    "GeneratedToken",
    "TextGenerator",
    "Timing",
    "Transfer",
    "client_settings",
]
