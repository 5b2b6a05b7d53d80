"""Classification: texts to embeddings at the client, to encrypted logits at the silo, to labels at the client."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.ckks import PackingPlan
from sealign.ckks.verification import CHECKS
from sealign.encoders import Encoder, EncoderSettings, load_encoder
from sealign.errors import InvalidInputError, NotFoundError, SealignError, UnknownMapError
from sealign.protocol import EMBEDDINGS, SpaceCard, TaskCard
from sealign_client.exchange import Exchange, Matrix, Target
from sealign_client.local.recentring import OwnThresholds, Recentring, require_enough_for_thresholds
from sealign_client.results import Classification, Description, classifications
from sealign_client.retry import RETRIED
from sealign_client.routes import Route, Routes, Source, no_map

if TYPE_CHECKING:
    from sealign_client.session import Calls
    from sealign_client.transport import Query, Reply


class Watch(Protocol):
    """Sees what crosses the network in one call."""

    def sent(self, query: Query) -> None:
        """A query is about to be sent."""

    def received(self, reply: Reply) -> None:
        """A reply has come."""


Progress: TypeAlias = Callable[[int], None]
"""Called with the number of texts or rows that have been done since the last call."""

_SHARE = 0.9
"""Share of what a key may tell that one batch may use up."""

_PIECE = 128
"""Texts that are embedded and sent together where results appear as they are made."""


@dataclass(frozen=True, eq=False)
class _Offer:
    """What the silo offers, and the route of this client's rows to it."""

    space: SpaceCard
    route: Route | None
    tasks: tuple[TaskCard, ...]

    @property
    def map_id(self) -> str:
        return "" if self.route is None else self.route.card.id


@dataclass(frozen=True, eq=False)
class _Ready:
    """A task that can be asked."""

    card: TaskCard
    route: Route

    def target(self, rows: int, verify: bool | None) -> Target:
        """Return the target under the plan by which so many rows take the least predicted time."""
        plans = [plan for plan in self.card.plans if not verify or plan.rows > CHECKS] or self.card.plans
        plan = _cheapest(plans, rows)
        return Target(self.card.name, self.card.revision, self.route.kind, plan, len(self.card.labels), verify)


class Classifier:
    """Classifies with one encoder through one silo.

    Args:
        routes: chooses the map.
        encoder: a loaded encoder, or which to load when it is first needed; None for a client without.
        recentring: file that `sealign adapt` made; None for rows as they are.
    """

    def __init__(self, routes: Routes, encoder: Encoder | EncoderSettings | None, recentring: Path | None) -> None:
        self.routes = routes
        self._session = routes.session
        self._encoder = encoder
        self._recentring_file = recentring
        self._recentring: Recentring | None = None
        self._offer: _Offer | None = None
        self._warned: set[str] = set()

    async def encoder(self) -> Encoder:
        """Return the encoder, loaded when it is first needed.

        Raises:
            InvalidInputError: this client has none, or it cannot be loaded.
        """
        if self._encoder is None:
            raise InvalidInputError("Name the local encoder: encoder=…, --encoder or SEALIGN_CLIENT_ENCODER.")
        if isinstance(self._encoder, EncoderSettings):
            self._encoder = await self._session.run(load_encoder, self._encoder)
        return self._encoder

    async def recentring(self) -> Recentring | None:
        """Return the mean on which rows are centred; None for rows as they are."""
        if self._recentring is None and self._recentring_file is not None:
            fingerprint = (await self.encoder()).card.fingerprint
            self._recentring = await self._session.run(Recentring.load, self._recentring_file, fingerprint)
        return self._recentring

    async def describe(self, *, refresh: bool = False) -> Description:
        """Return what the silo offers to this encoder; asked once until ``refresh``."""
        silo, offer = await self.routes.silo(refresh=refresh), await self._offered(refresh=refresh)
        return Description(silo, offer.space, None if offer.route is None else offer.route.card, offer.tasks)

    async def _offered(self, *, refresh: bool = False) -> _Offer:
        if self._offer is None or refresh:
            card, recentring = (await self.encoder()).card, await self.recentring()
            space = await self.routes.space(EMBEDDINGS, card)

            async def attempt(*_: object) -> _Offer:
                route = await self.routes.find(space, card, recentring)
                kind = None if route is None else route.kind
                calls = await self._session.calls()
                return _Offer(space, route, await calls.classification.tasks(kind, self._session.timeout))

            async def renew(error: SealignError) -> None:
                if isinstance(error, UnknownMapError):
                    await self.routes.forget_registration(space, card)

            self._offer = self._with_own_thresholds(await self._session.retried(attempt, renew), recentring)
        return self._offer

    def _with_own_thresholds(self, offer: _Offer, recentring: Recentring | None) -> _Offer:
        own = None if recentring is None else recentring.thresholds
        if own is None:
            return offer
        held = (own.put_in(task) if own.hold_for(task, offer.map_id) else task for task in offer.tasks)
        return replace(offer, tasks=tuple(held))

    async def source(self) -> Source:
        """Return what gives this encoder's rows of a public set."""
        encoder = await self.encoder()

        async def rows(texts: PublicSet, progress: Progress | None) -> NDArray[np.float32]:
            return await self._session.run(partial(encoder.encode, texts.texts, progress=progress))

        return Source(encoder.card, rows)

    async def note_alignment(self) -> None:
        """Use a new map from now on."""
        self._offer = None

    async def task(self, name: str | None = None) -> TaskCard:
        """Return the card of a task; without a name, of the only one.

        Raises:
            NotFoundError: no such task.
            InvalidInputError: no name, and not exactly one task.
        """
        return chosen((await self._offered()).tasks, name, "task")

    async def _ready(self, name: str | None) -> _Ready:
        card = await self.task(name)
        if not card.plans:
            await self._offered(refresh=True)  # an alignment may have ended meanwhile
            card = await self.task(name)
        encoder, route = (await self.encoder()).card, (await self._offered()).route
        if route is None:
            raise no_map(encoder, EMBEDDINGS, self.routes.options.placement)
        if not card.plans:
            raise InvalidInputError(
                f"The silo does not serve task {card.name!r} through map {route.card.id}: no parameter set holds its "
                "logits. Ask the silo's operator, whose log says why."
            )
        route.require_dimension(card.plans[0])
        return _Ready(card, route)

    async def classify(
        self,
        texts: Sequence[str],
        task: str | None = None,
        progress: Progress | None = None,
        *,
        verify: bool | None = None,
    ) -> list[Classification]:
        """Return classifications of texts, in their order; see `AsyncClient.classify`."""
        card = (await self._ready(task)).card  # before the expensive embedding
        if not texts:
            return []
        encoder = await self.encoder()
        rows = await self._session.run(partial(encoder.encode, texts, progress=progress))
        return await self.classify_rows(rows, card.name, verify=verify)

    async def classify_rows(
        self, rows: NDArray[np.floating], task: str | None = None, *, verify: bool | None = None
    ) -> list[Classification]:
        """Return classifications of embeddings, (n, d), in their order."""
        ready, outputs = await self.outputs(rows, task, verify=verify)
        return classifications(ready.card, outputs, self._thresholds(ready))

    async def classify_each(self, texts: Iterable[str], task: str | None = None) -> AsyncIterator[Classification]:
        """Yield classifications as they are made, in constant memory."""
        await self._ready(task)
        piece: list[str] = []
        for text in texts:
            piece.append(text)
            if len(piece) == _PIECE:
                for result in await self.classify(piece, task):
                    yield result
                piece = []
        for result in await self.classify(piece, task):
            yield result

    async def logits(
        self,
        rows: NDArray[np.floating],
        task: str | None = None,
        progress: Progress | None = None,
        *,
        verify: bool | None = None,
    ) -> Matrix:
        """Return logits, (n, C), of embeddings, (n, d); see `AsyncClient.logits`."""
        ready, outputs = await self.outputs(rows, task, progress, verify=verify)
        return ready.card.layout.logits(outputs)

    async def outputs(
        self,
        embeddings: NDArray[np.floating],
        task: str | None,
        progress: Progress | None = None,
        *,
        verify: bool | None = None,
    ) -> tuple[_Ready, Matrix]:
        """Return outputs, (n, outputs), and the head that gave them: one head, whatever changes meanwhile."""
        ready = await self._ready(task)
        rows = ready.route.prepared(embeddings, ready.card.plans[0], clip=False)
        done: list[Matrix] = []
        retry, alone = self._session.patience(), False
        while (count := sum(map(len, done))) < len(rows):
            target = ready.target(len(rows) - count, verify)
            exchange = Exchange(self._session, target)
            batches = target.batches(rows[count:], _SHARE * target.plan.parameters.spare_bits(self._session.table))
            try:
                async for part in self._answered(exchange, target.plan, batches[: 1 if alone else None]):
                    done.append(part)
                    retry.progressed()
                    if progress is not None:
                        progress(len(part))
                exchange.conclude()
                alone = False
            except RETRIED as error:
                exchange.conclude()
                alone = True  # a stream may hide why it ended
                await self._session.mend(error, retry, self._renew)
                before, ready = ready, await self._ready(ready.card.name)
                if (ready.card.revision, ready.route.kind) != (before.card.revision, before.route.kind):
                    rows = ready.route.prepared(embeddings, ready.card.plans[0], clip=False)
                    done.clear()
        return ready, np.concatenate([np.empty((0, ready.card.layout.outputs)), *done])

    async def _renew(self, error: SealignError) -> None:
        if isinstance(error, UnknownMapError) and self._offer is not None:
            await self.routes.forget_registration(self._offer.space, (await self.encoder()).card)
        await self._offered(refresh=True)

    async def _answered(
        self, exchange: Exchange, plan: PackingPlan, batches: Sequence[Matrix]
    ) -> AsyncIterator[Matrix]:
        """Yield the outputs of rows, batch by batch, under one plan."""
        calls, seconds = (await self._session.calls()).classification, self._session.timeout
        if len(batches) == 1:
            yield await exchange.ask(batches[0], lambda query: calls.classify(query, plan, seconds))
            return
        async for part in exchange.ask_all(batches, lambda queries: calls.classify_stream(queries, plan, seconds)):
            yield part

    def _thresholds(self, ready: _Ready) -> dict[str, float] | None:
        """Return thresholds that hold for this client's map; warn once if there are none, or no probabilities."""
        card, route = ready.card, ready.route
        if not card.calibrated and card.name not in self._warned:
            self._warned.add(card.name)
            why = "is not registered with the silo" if not route.is_registered else "could not be calibrated for"
            warnings.warn(
                f"The map {route.card.id[:12]} {why}, so task {card.name!r} gives labels without probabilities. Align "
                "with registration, or ask the silo's operator.",
                stacklevel=2,
            )
        own = None if route.recentring is None else route.recentring.thresholds
        if card.calibrated or (own is not None and (own.revision, own.map) == (card.revision, route.card.id)):
            return card.ood_thresholds
        return None

    async def watched(
        self, embedding: NDArray[np.floating], task: str | None, request_id: str, watch: Watch
    ) -> Classification:
        """Return the classification of one embedding, (1, d), and show what crosses the network.

        Args:
            request_id: under which the silo records the call.
            watch: called with the query when it is sent, and with the reply when it has come.
        """

        async def attempt(calls: Calls, seconds: float) -> Classification:
            ready = await self._ready(task)
            target = ready.target(1, None)

            async def send(query: Query) -> AsyncIterator[Reply]:
                watch.sent(query)
                async for reply in calls.classification.classify(query, target.plan, seconds, request_id):
                    watch.received(reply)
                    yield reply

            exchange = Exchange(self._session, target)
            outputs = await exchange.ask(ready.route.prepared(embedding, target.plan, clip=False), send)
            exchange.conclude()
            return classifications(ready.card, outputs, self._thresholds(ready))[0]

        return await self._session.retried(attempt, self._renew)

    async def adapt(
        self, texts: Sequence[str], progress: Progress | None, *, thresholds: bool, task: str | None
    ) -> Recentring:
        """Centre what is classified from now on as these texts are centred; see `AsyncClient.adapt`."""
        if thresholds:  # before the expensive embedding
            require_enough_for_thresholds(len(texts))
            await self._ready(task)
        encoder = await self.encoder()
        rows = await self._session.run(partial(encoder.encode, texts, progress=progress))
        made = Recentring.of(rows, encoder.card.fingerprint)
        self._use(made)
        if thresholds:
            ready, outputs = await self.outputs(rows, task, progress)
            made = replace(made, thresholds=OwnThresholds.of(ready.card, ready.route.card.id, outputs))
            self._use(made)
        return made

    def _use(self, recentring: Recentring) -> None:
        self._recentring, self._offer = recentring, None


def chosen(cards: Sequence[TaskCard], name: str | None, kind: str) -> TaskCard:
    names = ", ".join(card.name for card in cards) or "none"
    if name is None:
        if len(cards) != 1:
            raise InvalidInputError(f"Name a {kind}. The silo's are: {names}.")
        return cards[0]
    for card in cards:
        if card.name == name:
            return card
    raise NotFoundError(f"The silo has no {kind} {name[:64]!r}; its {kind}s are: {names}.")


def _cheapest(plans: Sequence[PackingPlan], rows: int) -> PackingPlan:
    """Return the plan under which ``rows`` rows take the least predicted time."""

    def milliseconds(plan: PackingPlan) -> float:
        full, rest = divmod(rows, plan.rows)
        return full * plan.cost.milliseconds + (plan.cost_of(rest).milliseconds if rest else 0.0)

    return min(plans, key=milliseconds)
