"""What a client is made of, from its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sealign.alignment import PublicSet
from sealign.encoders import Encoder, EncoderSettings
from sealign.protocol import MapCard, find_public_set, generation_task_of
from sealign_client.canaries import Canaries
from sealign_client.classify import Classifier
from sealign_client.local.canaries import CanaryStore
from sealign_client.local.directory import maps_directory
from sealign_client.local.keys import KeyRing, KeyStore
from sealign_client.local.maps import ClientMaps
from sealign_client.local.silo_keys import SiloKeys, SiloTrust
from sealign_client.options import AlignmentOptions
from sealign_client.results import Timing
from sealign_client.routes import RouteOptions, Routes
from sealign_client.session import Session
from sealign_client.settings import ClientSettings

if TYPE_CHECKING:
    from sealign_client.generate import Generator


class Parts:
    """Session, classifier and generator of one client. Making them reads no file and loads no model.

    Args:
        settings: of the client.
        encoder: a loaded encoder, or the name of one; None for a client that only generates.
        observe: as for `Session`.

    Attributes:
        session: with the silo.
        routes: which map leads where.
        classifier: with the encoder.
        classifies, generates: whether the client has an encoder, and a causal model.
    """

    def __init__(
        self, settings: ClientSettings, encoder: Encoder | str | None, observe: Callable[[Timing], None] | None
    ) -> None:
        self._passphrase = settings.key_passphrase.get_secret_value() if settings.key_passphrase else None
        directory = maps_directory(settings.map_directory)
        keys = KeyRing(KeyStore(settings.key_directory, self._passphrase, settings.security_table))
        trust = SiloTrust(settings.silo, SiloKeys(directory), settings.silo_key)
        self.session = Session(settings.endpoint, keys, trust, settings.timeout, observe)
        options = RouteOptions(settings.placement, settings.register_maps)
        self.routes = Routes(self.session, ClientMaps(directory), options)
        store, refuses = CanaryStore(directory), settings.canary_alarm == "refuse"
        canaries = Canaries(self.session, store, settings.canaries, refuses=refuses)
        parsed = EncoderSettings.parse(encoder) if isinstance(encoder, str) else encoder
        self.classifier = Classifier(self.routes, parsed, settings.recentring, canaries)
        self.classifies, self.generates = encoder is not None, settings.model is not None
        self._model = None if settings.model is None else EncoderSettings.parse(settings.model)
        self._generator: Generator | None = None

    @property
    def generator(self) -> Generator:
        """Generation with the client's causal model."""
        if self._generator is None:
            from sealign_client.generate import Generator

            self._generator = Generator(self.routes, self._model)
        return self._generator

    async def align(self, texts: PublicSet, space: str, options: AlignmentOptions) -> MapCard:
        """Learn the map of the encoder, or of the causal model, to a space; see `AsyncClient.align`."""
        from sealign_client.align import Aligner  # imports what only alignment needs

        held = (await self.routes.space(space)).public_sets  # before a model is loaded
        find_public_set(held, texts.digest, f"the silo's space {space!r}")
        task = generation_task_of(space)
        source = await (self.classifier.source() if task is None else self.generator.source(task))
        learned = await Aligner(self.routes, source, space, self._passphrase).align(texts, options)
        await (self.classifier.note_alignment() if task is None else self.generator.aligned(texts, task, options))
        return learned

    async def close(self) -> None:
        """Close the connection; keys that are not stored are gone. Closing twice is harmless."""
        self.classifier.canaries.close()
        await self.session.close()
