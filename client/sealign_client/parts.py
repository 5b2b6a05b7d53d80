"""What a client is made of, from its settings."""

from __future__ import annotations

from collections.abc import Callable

from sealign_client.canaries import Canaries
from sealign_client.local.canaries import CanaryStore
from sealign_client.local.directory import maps_directory
from sealign_client.local.keys import KeyRing, KeyStore
from sealign_client.local.maps import ClientMaps
from sealign_client.local.silo_keys import SiloKeys, SiloTrust
from sealign_client.results import Timing
from sealign_client.routes import RouteOptions, Routes
from sealign_client.session import Session
from sealign_client.settings import ClientSettings


def routes_of(settings: ClientSettings, passphrase: str | None, observe: Callable[[Timing], None] | None) -> Routes:
    """Return the routes of a client, on a session of their own; no file is read.

    Args:
        settings: of the client.
        passphrase: of stored keys.
        observe: as for `Session`.
    """
    directory = maps_directory(settings.map_directory)
    keys = KeyRing(KeyStore(settings.key_directory, passphrase, settings.security_table))
    trust = SiloTrust(settings.silo, SiloKeys(directory), settings.silo_key)
    session = Session(settings.endpoint, keys, trust, settings.timeout, observe)
    return Routes(session, ClientMaps(directory), RouteOptions(settings.placement, settings.register_maps))


def canaries_of(settings: ClientSettings, routes: Routes) -> Canaries:
    """Return the canaries of a client, whose files are beside its maps."""
    store, refuses = CanaryStore(routes.maps.directory), settings.canary_alarm == "refuse"
    return Canaries(routes.session, store, settings.canaries, refuses=refuses)
