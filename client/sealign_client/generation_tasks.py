"""The silo's generation tasks as a client's causal model can use them: model, tokenizer, map, plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.errors import InvalidInputError, NoMapError, NoPlanError, SealignError, UnknownMapError
from sealign.files import resumed_rows
from sealign.generation.whitening import Whitening
from sealign.protocol import GenerationCard, MapCard, SpaceCard, generation_space
from sealign_client.local.directory import private
from sealign_client.local.maps import Lane
from sealign_client.local.mixtures import load_mixture
from sealign_client.local.unfinished import Rows
from sealign_client.results import GenerationDescription
from sealign_client.routes import Route, Routes, Source, chosen_name

if TYPE_CHECKING:
    from sealign.encoders import EncoderSettings
    from sealign.encoders.causal import CausalModel
    from sealign.encoders.tokenizer import CausalTokenizer


@dataclass(frozen=True, eq=False)
class Offer:
    """A task as the client's model can use it."""

    card: GenerationCard
    space: SpaceCard
    route: Route | None


class GenerationTasks:
    """What a silo's generation tasks offer to one causal model.

    Args:
        routes: chooses the map.
        model: which model to load when it is first needed; None for a client without.
    """

    def __init__(self, routes: Routes, model: EncoderSettings | None) -> None:
        self.routes = routes
        self.settings = model
        self._session = routes.session
        self._model: CausalModel | None = None
        self._offers: dict[str, Offer] = {}
        self._tokenizers: dict[str, CausalTokenizer] = {}
        self._whitenings: dict[Path, Whitening] = {}

    async def model(self) -> CausalModel:
        """Return the model, loaded when it is first needed.

        Raises:
            InvalidInputError: this client has none, or it cannot be loaded.
        """
        return await self._session.run(self._loaded) if self._model is None else self._model

    def _loaded(self) -> CausalModel:
        """Load the model; in the worker thread, so that callers who wait for it together find it loaded."""
        from sealign.encoders.causal import CausalModel  # needs torch

        if self._model is None:
            self._model = CausalModel(self._required())
        return self._model

    def _required(self) -> EncoderSettings:
        if self.settings is None:
            raise InvalidInputError("Name the local causal language model: model=…, --model or SEALIGN_CLIENT_MODEL.")
        return self.settings

    async def describe(self, *, refresh: bool = False) -> tuple[GenerationDescription, ...]:
        """Return what the silo's generation tasks offer to this model; asked once until ``refresh``."""
        silo = await self.routes.silo(refresh=refresh)
        if refresh:
            self._offers.clear()
        offers = [await self._offered(name) for name in silo.generation_tasks]
        return tuple([await self._described(offer) for offer in offers])

    async def _described(self, offer: Offer) -> GenerationDescription:
        if offer.route is None:
            return GenerationDescription(offer.card, offer.space, None)
        lane, used = await self._lane(offer.card.name), offer.route.card
        stored = await self._session.run(load_mixture, self.routes.maps.directory, lane)
        current = stored is not None and (stored.map, stored.tokenizer) == (used.id, offer.card.tokenizer)
        mixture = stored.mixture if stored is not None and current else None
        return GenerationDescription(offer.card, offer.space, used, mixture)

    async def _lane(self, task: str) -> Lane:
        return await self.routes.lane((await self._offered(task)).space, (await self.model()).card)

    async def task(self, name: str | None = None) -> GenerationCard:
        """Return the card of a task; without a name, of the only one.

        Raises:
            NotFoundError: no such task.
            InvalidInputError: no name, and not exactly one task.
        """
        return (await self._offered(await self._name(name))).card

    async def _name(self, name: str | None) -> str:
        names = (await self.routes.silo()).generation_tasks
        if name not in names:
            names = (await self.routes.silo(refresh=True)).generation_tasks
        return chosen_name(names, name, "generation task")

    async def _offered(self, name: str, *, refresh: bool = False) -> Offer:
        if name not in self._offers or refresh:
            card = (await self.model()).card
            space = await self.routes.space(generation_space(name), card)

            async def attempt(*_: object) -> Offer:
                route = await self.routes.find(space, card)
                calls = await self._session.calls()
                task = await calls.generation.task(name, None if route is None else route.kind)
                return Offer(task, space, route)

            async def renew(error: SealignError) -> None:
                if isinstance(error, UnknownMapError):
                    await self.routes.forget_registration(space, card)

            self._offers[name] = await self._session.retried(attempt, renew)
        return self._offers[name]

    async def tokenizer(self, task: str | None = None) -> CausalTokenizer:
        """Return a task's tokenizer, fetched once.

        Raises:
            InvalidInputError: what came is not the tokenizer that the card names, or does not fit the vocabulary.
        """
        from sealign.encoders.tokenizer import CausalTokenizer

        card = await self.task(task)
        if card.tokenizer not in self._tokenizers:
            content = await self._session.retried(lambda calls, _: calls.generation.tokenizer(card))
            made = await self._session.run(CausalTokenizer.from_bytes, content)
            if made.fingerprint != card.tokenizer:
                raise InvalidInputError(
                    f"The silo sent another tokenizer than the one that belongs to task {card.name}: it is damaged, or "
                    "was changed after the map was learned. Nothing was encrypted."
                )
            await self._session.run(made.allowed, card.vocabulary)  # refuses a head of another model
            self._tokenizers[card.tokenizer] = made
        return self._tokenizers[card.tokenizer]

    async def offer(self, task: str | None) -> Offer:
        """Return what a task offers to this model.

        Raises:
            NotFoundError, InvalidInputError: as :meth:`task`.
            NoPlanError: no parameter set holds its logits.
        """
        offer = await self._offered(await self._name(task))
        self._require_servable(offer.card)
        return offer

    async def source(self, task: str) -> Source:
        """Return what gives this model's rows of a public set: one for each of the silo's tokens that count."""
        tokenizer, model = await self.tokenizer(task), await self.model()

        async def rows(texts: PublicSet, progress: Callable[[int], None] | None) -> Rows:
            path = self._path(tokenizer, texts.digest, "states")
            read = await self._session.run(_read, model, tokenizer, texts, path, progress)
            if not model.whitens:
                return read
            return await self._session.run(self._whitened, read, path.with_suffix(".whitening"))

        return Source(model.card, rows)

    async def prepared(self, rows: NDArray[np.float32], task: str, used: MapCard) -> NDArray[np.float32]:
        """Return rows of the model's, (n, d), as the map in use was learned from them.

        Raises:
            NoMapError: the map was learned from rows that another machine whitened.
        """
        model = await self.model()
        if not model.whitens:
            return rows
        path = self._path(await self.tokenizer(task), used.public_set, "whitening")
        if path not in self._whitenings:
            if not path.exists():
                raise NoMapError(
                    f"Map {used.id[:12]} was learned from rows that another machine, or another map directory, has "
                    f"whitened. Align here: sealign align --generation {task} --public FILE"
                )
            self._whitenings[path] = await self._session.run(Whitening.load, path)
        return await self._session.run(self._whitenings[path].apply, rows)

    def _path(self, tokenizer: CausalTokenizer, public_set: str, kind: str) -> Path:
        """Return the file of what this model makes of a public set: its states, or their whitening."""
        if self._model is None:  # both callers have loaded it
            raise InvalidInputError("Name the local causal language model.")
        parts = "\0".join((self._model.card.fingerprint, tokenizer.fingerprint, public_set))
        return self.routes.maps.directory / f"{sha256(parts.encode()).hexdigest()[:32]}.{kind}"

    def _whitened(self, rows: NDArray[np.float16], path: Path) -> NDArray[np.float16]:
        """Whiten rows of public texts, and keep the whitening for what is sent later."""
        whitening = Whitening.fit(rows)
        private(path.parent)
        whitening.save(path)
        self._whitenings[path] = whitening
        return whitening.spilled(rows, path.parent)

    async def note_alignment(self, task: str) -> None:
        """Use a new map from now on.

        Raises:
            NoPlanError: the silo can serve the task behind it under no parameter set.
        """
        self._offers.pop(task, None)
        try:
            self._require_servable((await self._offered(task)).card)
        except NoPlanError:
            raise
        except SealignError:
            return  # the alignment has succeeded; the next use says what is wrong now

    def _require_servable(self, card: GenerationCard) -> None:
        if card.unservable:
            name = "this client's model" if self._model is None else self._model.card.name
            raise NoPlanError(
                f"The silo cannot serve generation task {card.name} to {name} under any parameter set: its logits are "
                "too large for the precision it asks for. The silo's operator can tell from its log what to change."
            )


def _read(
    model: CausalModel,
    silo: CausalTokenizer,
    texts: PublicSet,
    path: Path,
    progress: Callable[[int], None] | None,
) -> NDArray[np.float16]:
    """Return the rows of public texts, mapped from a file that an interrupted run resumes and later ones find whole."""
    from sealign.generation.states import client_rows, row_counts

    move = progress or _ignore

    def read(done: int) -> Iterator[NDArray[np.float32]]:
        move(done)
        for rows in client_rows(model, silo, texts.texts[done:]):
            yield rows
            move(1)

    private(path.parent)
    return resumed_rows(path, row_counts(silo, texts.texts), model.card.dimension, read)


def _ignore(_: int) -> None: ...
