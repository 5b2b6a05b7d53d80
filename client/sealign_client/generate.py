"""Generation by two models: the client's encodes the text, the silo's head scores the next token under encryption."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from sealign.ckks import PackingPlan
from sealign.errors import DecryptionError, InvalidInputError, SealignError
from sealign.generation.measures import log_softmax
from sealign.generation.rewriting import token_counts
from sealign.generation.sampling import Choice, Sampler, Sampling, StopStrings
from sealign.protocol import GenerationCard, generation_space
from sealign_client.exchange import Exchange, Target
from sealign_client.generation_tasks import GenerationTasks
from sealign_client.local.mixtures import StoredMixture, load_mixture, save_mixture
from sealign_client.mixing import Mixing, fitted_mixture, require_current, spread_positions
from sealign_client.options import AlignmentOptions
from sealign_client.results import Finish, GeneratedToken, Mixture, Timing
from sealign_client.retry import RETRIED
from sealign_client.routes import Route, no_map

if TYPE_CHECKING:
    from sealign.alignment import PublicSet
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
        mixture: whether to sample from the mixture with the client's own distribution.
    """

    prompt: str
    task: str | None = None
    max_tokens: int | None = None
    sampling: Sampling | None = None
    alternatives: int = 0
    mixture: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt:
            raise InvalidInputError("A prompt is a text of one character or more. Give one.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InvalidInputError(f"At least one new token must be requested, not {self.max_tokens}.")


@dataclass(frozen=True, eq=False)
class _Ready:
    """A task that can be asked."""

    card: GenerationCard
    plan: PackingPlan
    route: Route


@dataclass(frozen=True, eq=False)
class _Scored:
    """What the silo's head says after one row: logits, shape (V,), and what the request took."""

    logits: NDArray[np.float64]
    timing: Timing


class Generator(GenerationTasks):
    """Generates with one causal model through one silo."""

    async def generate(self, wanted: Generation) -> AsyncIterator[GeneratedToken]:
        """Yield new tokens; see `AsyncClient.generate`."""
        self._required()
        ready = await self._ready(wanted.task)
        tokenizer = await self.tokenizer(ready.card.name)
        model = await self.model()
        sampling = wanted.sampling or Sampling()
        limit = min(wanted.max_tokens or DEFAULT_TOKENS, ready.card.max_tokens)
        stops = StopStrings(sampling.stop)
        seen = [int(number) for number in tokenizer.encode(wanted.prompt).ids]
        allowed = await self._session.run(tokenizer.allowed, ready.card.vocabulary)
        sampler = Sampler(sampling, allowed, seen, wanted.alternatives)
        mixing = await self._mixing(ready, tokenizer, model) if wanted.mixture else None
        session, text = model.session(), wanted.prompt
        state: NDArray[np.float32] | None = await self._session.run(session.advance, text)
        for count in range(1, limit + 1):
            assert state is not None  # noqa: S101 - the last round but one has ended where there is none
            sent = await self._session.run(model.sent, state[None])
            row = await self.prepared(sent, ready.card.name, ready.route.card)
            ready, scored = await self._scored(ready, row)
            choice, silo = await self._session.run(_chosen, sampler, scored.logits, mixing, state)
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
            yield GeneratedToken(
                written, choice.id, choice.log_probability, choice.alternatives, finish, silo, scored.timing
            )
            if finish is not None:
                return

    async def aligned(self, texts: PublicSet, task: str, options: AlignmentOptions) -> None:
        """Use a new map from now on, and fit a mixture behind it if that is wanted.

        Raises:
            NoPlanError: the silo can serve the task behind it under no parameter set.
            InvalidInputError, DecryptionError, UnavailableError: as :meth:`fit_mixture`; the map stays.
        """
        await self.note_alignment(task)
        if options.mixture_positions:
            await self.fit_mixture(texts, task, options.mixture_positions)

    async def fit_mixture(self, texts: PublicSet, task: str, positions: int) -> Mixture:
        """Ask the silo about public positions, fit the weight of a mixture, and keep it beside the map.

        Raises:
            InvalidInputError: the texts have fewer positions.
            NoMapError, NoPlanError, DecryptionError, UnavailableError: as :meth:`generate`; nothing was kept.
        """
        if positions < 1:
            raise InvalidInputError(f"At least one position must be requested, not {positions}.")
        ready = await self._ready(task)
        tokenizer, model, run = await self.tokenizer(task), await self.model(), self._session.run
        some = await run(spread_positions, model, tokenizer, texts.texts, positions)
        counts = await run(token_counts, tokenizer, ready.card.vocabulary, texts.texts)
        mixing = await run(Mixing, model, tokenizer, counts, 0.5)
        silo, own = [], []
        for row, state, follows in zip(some.rows, some.states, some.following.tolist(), strict=True):
            sent = await self.prepared(row[None], task, ready.route.card)
            ready, scored = await self._scored(ready, sent)
            silo.append(float(log_softmax(scored.logits[None])[0, follows]))
            own.append(float((await run(mixing.own, state))[follows]))
        found = fitted_mixture(silo, own)
        stored = StoredMixture(ready.route.card.id, ready.card.tokenizer, found, counts)
        lane = await self._lane(task)
        await run(save_mixture, self.routes.maps.directory, lane, stored)
        return found

    async def _mixing(self, ready: _Ready, tokenizer: CausalTokenizer, model: CausalModel) -> Mixing:
        directory, name = self.routes.maps.directory, ready.card.name
        stored = await self._session.run(load_mixture, directory, await self._lane(name))
        current = require_current(stored, ready.route.card.id, ready.card.tokenizer, name)
        return await self._session.run(Mixing, model, tokenizer, current.counts, current.mixture.weight)

    async def _ready(self, task: str | None) -> _Ready:
        name = await self._name(task)
        if self._model is None:  # before one is loaded
            await self.routes.require_any_map(generation_space(name), self._required().model)
        offer = await self._offered(name)
        if offer.card.plan is None:
            offer = await self._offered(name, refresh=True)  # an alignment may have ended meanwhile
        self._require_servable(offer.card)
        if offer.route is None or offer.card.plan is None:
            card = (await self.model()).card
            named = f"{card.name} ({card.fingerprint[:12]}…)"
            raise no_map(named, offer.space.name, self.routes.options.placement)
        offer.route.require_dimension(offer.card.plan)
        return _Ready(offer.card, offer.card.plan, offer.route)

    async def _scored(self, ready: _Ready, row: NDArray[np.float32]) -> tuple[_Ready, _Scored]:
        """Return what the head says after a row, (1, d), and the task that said it; a break is bridged."""
        retry = self._session.patience()

        async def renew(_: SealignError) -> None:
            nonlocal ready
            ready = await self._renewed(ready.card)

        while True:
            try:
                return ready, await self._asked(ready, row, retry.remaining)
            except RETRIED as error:  # noqa: PERF203
                await self._session.mend(error, retry, renew)

    async def _renewed(self, before: GenerationCard) -> _Ready:
        self._offers.pop(before.name, None)
        ready = await self._ready(before.name)
        if (ready.card.tokenizer, ready.card.vocabulary) != (before.tokenizer, before.vocabulary):
            raise InvalidInputError("The silo has put another model behind the task. Start the generation again.")
        return ready

    async def _asked(self, ready: _Ready, row: NDArray[np.float32], seconds: float) -> _Scored:
        calls, plan = (await self._session.calls()).generation, ready.plan
        target = Target(ready.card.name, ready.card.revision, ready.route.kind, plan, ready.card.vocabulary)
        exchange = Exchange(self._session, target)
        rows = ready.route.prepared(row, plan, clip=True)
        try:
            outputs = await exchange.ask(rows, lambda query: calls.next_token(query, plan, seconds))
            exchange.conclude()
        except DecryptionError as error:
            raise DecryptionError(
                f"Logits leave the ±{plan.range:g} that the silo promises for generation task {ready.card.name}: the "
                "text is unlike the public texts that the map was learned over, or the reply was damaged. Do not send "
                "the same text again; align over public texts that are more like it."
            ) from error
        assert exchange.timing is not None  # noqa: S101 - it was asked
        return _Scored(outputs[0], exchange.timing)


def _chosen(
    sampler: Sampler, logits: NDArray[np.float64], mixing: Mixing | None, state: NDArray[np.float32]
) -> tuple[Choice, float | None]:
    """Return the next token; with a mixture, also its log-probability by the silo alone, among the tokens allowed."""
    if mixing is None:
        return sampler.choose(logits), None
    choice = sampler.choose(mixing.mixed(logits, state))
    return choice, sampler.log_probability(logits, choice.id)


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


def _advanced(model: CausalModel, session: CausalSession, text: str) -> NDArray[np.float32] | None:
    """Return the state after a text that has grown by a token; None if it has outgrown the model's window."""
    tokens = len(model.tokenizer.prefix) + len(model.tokenizer.encode(text))
    return None if tokens > model.card.window else session.advance(text)
