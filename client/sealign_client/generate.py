"""Generation by two models: the client's encodes the text, the silo's head scores the next token under encryption."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from sealign.alignment import PublicSet
from sealign.ckks import PackingPlan
from sealign.errors import DecryptionError, InvalidInputError, NoPlanError, NotFoundError, SealignError, UnknownMapError
from sealign.generation.sampling import Sampler, Sampling, StopStrings
from sealign.protocol import GenerationCard, SpaceCard, generation_space
from sealign_client.exchange import Exchange, Target
from sealign_client.results import Finish, GeneratedToken, GenerationDescription
from sealign_client.retry import RETRIED
from sealign_client.routes import Route, Routes, Source, no_map

if TYPE_CHECKING:
    from sealign.encoders import EncoderSettings
    from sealign.encoders.causal import CausalModel, CausalSession
    from sealign.encoders.tokenizer import CausalTokenizer

DEFAULT_TOKENS = 64


@dataclass(frozen=True)
class Generation:
    """What to generate.

    Attributes:
        prompt: the text so far; special tokens in it are read as the text they are.
        task: may be left out if there is one.
        max_tokens: maximum number of new tokens; by default 64. The silo may impose a lower limit.
        sampling: how tokens are chosen; by default the likeliest each time.
        alternatives: number of likeliest tokens reported with each token.
    """

    prompt: str
    task: str | None = None
    max_tokens: int | None = None
    sampling: Sampling | None = None
    alternatives: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InvalidInputError(f"At least one new token must be requested, not {self.max_tokens}.")


@dataclass(frozen=True, eq=False)
class Offer:
    """A task as the client's model can use it."""

    card: GenerationCard
    space: SpaceCard
    route: Route | None


@dataclass(frozen=True, eq=False)
class _Ready:
    """A task that can be asked."""

    card: GenerationCard
    plan: PackingPlan
    route: Route


class Generator:
    """Generates with one causal model through one silo.

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

    async def model(self) -> CausalModel:
        """Return the model, loaded when it is first needed.

        Raises:
            InvalidInputError: this client has none, or it cannot be loaded.
        """
        if self._model is None:
            if self.settings is None:
                raise InvalidInputError(
                    "Name the local causal language model: model=…, --model or SEALIGN_CLIENT_MODEL."
                )
            self._model = await self._session.run(_loaded, self.settings)
        return self._model

    async def describe(self, *, refresh: bool = False) -> tuple[GenerationDescription, ...]:
        """Return what the silo's generation tasks offer to this model; asked once until ``refresh``."""
        silo = await self.routes.silo(refresh=refresh)
        if refresh:
            self._offers.clear()
        offers = [await self._offered(name) for name in silo.generation_tasks]
        return tuple(
            GenerationDescription(offer.card, offer.space, None if offer.route is None else offer.route.card)
            for offer in offers
        )

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
        listed = ", ".join(names) or "none"
        if name is None and len(names) != 1:
            raise InvalidInputError(f"Name a generation task. The silo's are: {listed}.")
        if name is not None and name not in names:
            raise NotFoundError(f"The silo has no generation task {name[:64]!r}; its generation tasks are: {listed}.")
        return name or names[0]

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

    async def generate(self, wanted: Generation) -> AsyncIterator[GeneratedToken]:
        """Yield new tokens; see `AsyncClient.generate`."""
        ready = await self._ready(wanted.task)
        tokenizer = await self.tokenizer(ready.card.name)
        model = await self.model()
        sampling = wanted.sampling or Sampling()
        limit = min(wanted.max_tokens or DEFAULT_TOKENS, ready.card.max_tokens)
        stops = StopStrings(sampling.stop)
        seen = [int(number) for number in tokenizer.encode(wanted.prompt).ids]
        allowed = await self._session.run(tokenizer.allowed, ready.card.vocabulary)
        sampler = Sampler(sampling, allowed, seen, wanted.alternatives)
        session, text = model.session(), wanted.prompt
        state: NDArray[np.float32] | None = await self._session.run(session.advance, text)
        for count in range(1, limit + 1):
            assert state is not None  # noqa: S101 - the last round but one has ended where there is none
            ready, logits = await self._logits(ready, state)
            choice = await self._session.run(sampler.choose, logits)
            ended = choice.id in tokenizer.ends
            piece = "" if ended else tokenizer.pieces[choice.id]
            text += piece
            written = stops.add(piece)
            finish = Finish.END if ended else Finish.STOP if stops.stopped else None
            if finish is None and count == limit:
                finish = Finish.LENGTH
            if finish is None:
                state = await self._session.run(_advanced, model, session, text)
                finish = Finish.WINDOW if state is None else None
            if finish is not None and finish is not Finish.STOP:
                written += stops.rest()
            yield GeneratedToken(written, choice.id, choice.log_probability, choice.alternatives, finish)
            if finish is not None:
                return

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

        async def rows(texts: PublicSet, progress: Callable[[int], None] | None) -> NDArray[np.float32]:
            return await self._session.run(_read, model, tokenizer, texts, progress)

        return Source(model.card, rows)

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

    async def _ready(self, task: str | None) -> _Ready:
        name = await self._name(task)
        offer = await self._offered(name)
        if offer.card.plan is None:
            offer = await self._offered(name, refresh=True)  # an alignment may have ended meanwhile
        self._require_servable(offer.card)
        if offer.route is None or offer.card.plan is None:
            raise no_map((await self.model()).card, offer.space.name, self.routes.options.placement)
        offer.route.require_dimension(offer.card.plan)
        return _Ready(offer.card, offer.card.plan, offer.route)

    def _require_servable(self, card: GenerationCard) -> None:
        if card.unservable:
            name = "this client's model" if self._model is None else self._model.card.name
            raise NoPlanError(
                f"The silo cannot serve generation task {card.name} to {name} under any parameter set: its logits are "
                "too large for the precision it asks for. The silo's operator can tell from its log what to change."
            )

    async def _logits(self, ready: _Ready, state: NDArray[np.float32]) -> tuple[_Ready, NDArray[np.float64]]:
        """Return logits, shape (V,), of what follows a state, and the task that gave them; a break is bridged."""
        retry = self._session.patience()

        async def renew(_: SealignError) -> None:
            nonlocal ready
            ready = await self._renewed(ready.card)

        while True:
            try:
                return ready, await self._asked(ready, state, retry.remaining)
            except RETRIED as error:  # noqa: PERF203
                await self._session.mend(error, retry, renew)

    async def _renewed(self, before: GenerationCard) -> _Ready:
        self._offers.pop(before.name, None)
        ready = await self._ready(before.name)
        if (ready.card.tokenizer, ready.card.vocabulary) != (before.tokenizer, before.vocabulary):
            raise InvalidInputError("The silo has put another model behind the task. Start the generation again.")
        return ready

    async def _asked(self, ready: _Ready, state: NDArray[np.float32], seconds: float) -> NDArray[np.float64]:
        calls, plan = (await self._session.calls()).generation, ready.plan
        target = Target(ready.card.name, ready.card.revision, ready.route.kind, plan, ready.card.vocabulary)
        exchange = Exchange(self._session, target)
        rows = ready.route.prepared(state[None], plan, clip=True)
        try:
            outputs = await exchange.ask(rows, lambda query: calls.next_token(query, plan, seconds))
            exchange.conclude()
        except DecryptionError as error:
            raise DecryptionError(
                f"Logits leave the ±{plan.range:g} that the silo promises for generation task {ready.card.name}: the "
                "text is unlike the public texts that the map was learned over, or the reply was damaged. Do not send "
                "the same text again; align over public texts that are more like it."
            ) from error
        logits: NDArray[np.float64] = outputs[0]
        return logits


def sampling_of(**fields: Any) -> Sampling:
    """Return how tokens are chosen, from options.

    Raises:
        InvalidInputError: an option is out of bounds, by name.
    """
    try:
        return Sampling(**fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise InvalidInputError(f"Tokens cannot be chosen so: {faults}.") from None


def _loaded(settings: EncoderSettings) -> CausalModel:
    from sealign.encoders.causal import CausalModel  # needs torch

    return CausalModel(settings)


def _advanced(model: CausalModel, session: CausalSession, text: str) -> NDArray[np.float32] | None:
    """Return the state after a text that has grown by a token; None if it has outgrown the model's window."""
    tokens = len(model.tokenizer.prefix) + len(model.tokenizer.encode(text))
    return None if tokens > model.card.window else session.advance(text)


def _read(
    model: CausalModel, silo: CausalTokenizer, texts: PublicSet, progress: Callable[[int], None] | None
) -> NDArray[np.float32]:
    from sealign.generation.states import client_rows

    rows = []
    for states in client_rows(model, silo, texts.texts):
        rows.append(states)
        if progress is not None:
            progress(1)
    return np.concatenate(rows)
