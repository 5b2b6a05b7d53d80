"""The silo's classification tasks as a client's encoder can use them: encoder, map, plans, recentring."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.ckks import PackingPlan, free_rows
from sealign.ckks.verification import CHECKS
from sealign.encoders import Encoder, EncoderSettings, embed, load_encoder
from sealign.errors import InvalidInputError, NoPlanError, OverloadedError, SealignError, UnknownMapError
from sealign.protocol import EMBEDDINGS, Limits, RowKind, SpaceCard, TaskCard
from sealign_client.exchange import Target
from sealign_client.local.recentring import Recentring
from sealign_client.results import Description
from sealign_client.routes import Route, Routes, Source, chosen_name, no_map
from sealign_client.session import Calls

if TYPE_CHECKING:
    from sealign_client.transport import Listing

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of texts or rows that have been done since the last call."""

_WASTE = 1.1
"""Rows counted against a budget, as a multiple of the rows sent, up to which a plan may be chosen for its speed."""
_POLL_SECONDS = 1.0
"""Least time between two questions after a head that is being fitted; the silo itself waits longer."""


@dataclass(frozen=True, eq=False)
class _Offer:
    """What the silo offers, and the route of this client's rows to it."""

    space: SpaceCard
    route: Route | None
    tasks: tuple[TaskCard, ...]
    faults: Mapping[str, SealignError]
    pins: int

    @property
    def map_id(self) -> str:
        return "" if self.route is None else self.route.card.id


@dataclass(frozen=True, eq=False)
class Ready:
    """A task that can be asked.

    Attributes:
        limits: what this client may ask the silo for.
    """

    card: TaskCard
    route: Route
    limits: Limits

    def target(self, rows: int, verify: bool | None) -> Target:
        """Return the target under the plan by which so many rows take the least predicted time."""
        plans = [plan for plan in self.card.plans if not verify or plan.rows > CHECKS] or self.card.plans
        allowed = [plan for plan in plans if self._allows(plan, rows)] or plans
        plan = min(allowed, key=lambda plan: _milliseconds(plan, rows))
        return Target(self.card.name, self.card.revision, self.route.kind, plan, len(self.card.labels), verify)

    def saves_together(self, rows: int) -> bool:
        """Return whether so many rows take less predicted time together than each alone."""
        together, alone = (_milliseconds(self.target(count, None).plan, count) for count in (rows, 1))
        return together < rows * alone

    def _allows(self, plan: PackingPlan, rows: int) -> bool:
        """Return whether the silo's limits let so many rows go under a plan.

        The silo counts the rows that ciphertexts have room for. Where it has a budget, little of it may be wasted.
        """
        if min(_places(plan, rows), plan.rows) > self.limits.rows_per_request:
            return False
        return self.limits.rows_per_day is None or _places(plan, rows) <= _WASTE * rows


class ClassificationTasks:
    """What a silo's tasks offer to one encoder.

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
        self._left_out: set[str] = set()

    async def encoder(self) -> Encoder:
        """Return the encoder, loaded when it is first needed.

        Raises:
            InvalidInputError: this client has none, or it cannot be loaded.
        """
        if self._encoder is None:
            raise InvalidInputError("Name the local encoder: encoder=…, --encoder or SEALIGN_CLIENT_ENCODER.")
        if isinstance(self._encoder, EncoderSettings):
            return await self._session.run(self._loaded, self._encoder)
        return self._encoder

    def _loaded(self, settings: EncoderSettings) -> Encoder:
        """Load the encoder; in the worker thread, so that callers who wait for it together find it loaded."""
        if self._encoder is None or isinstance(self._encoder, EncoderSettings):
            self._encoder = load_encoder(settings)
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
        if self._offer is None or refresh or self._offer.pins != self.routes.maps.state():
            card, recentring = (await self.encoder()).card, await self.recentring()
            space = await self.routes.space(EMBEDDINGS, card)

            async def attempt(*_: object) -> _Offer:
                pins = self.routes.maps.state()
                route = await self.routes.find(space, card, recentring)
                kind = None if route is None else route.kind
                calls = await self._session.calls()
                listing = await calls.classification.tasks(kind, self._session.timeout)
                self._mention(listing.faults)
                return _Offer(space, route, listing.cards, listing.faults, pins)

            async def renew(error: SealignError) -> None:
                if isinstance(error, UnknownMapError):
                    await self.routes.forget_registration(space, card)

            self._offer = self._with_own_thresholds(await self._session.retried(attempt, renew), recentring)
        return self._offer

    def _mention(self, faults: Mapping[str, SealignError]) -> None:
        """Warn once of each task that is left out."""
        for name, error in faults.items():
            if name not in self._left_out:
                self._left_out.add(name)
                warnings.warn(f"Task {name!r} of the silo cannot be used here: {error}", stacklevel=2)

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
            return (await self._session.run(partial(embed, encoder, texts.texts, progress=progress))).rows

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
        await self._require_sound(name)
        return _chosen(await self._offered(), name)

    async def _require_possible(self, name: str | None) -> None:
        """Refuse what needs no model to be refused, before one is loaded."""
        await self._require_sound(name)
        if isinstance(self._encoder, EncoderSettings):
            chosen_name((await self.routes.silo()).tasks, name, "task")
            await self.routes.require_any_map(EMBEDDINGS, self._encoder.model or self._encoder.family)

    async def _require_sound(self, name: str | None) -> None:
        """Refuse a task that nobody can use at present: an alignment would change nothing.

        Raises:
            NoPlanError: the silo says so.
        """
        for refresh in (False, True):  # what was so may have been mended
            silo = await self.routes.silo(refresh=refresh)
            chosen = silo.tasks[0] if name is None and len(silo.tasks) == 1 else name
            if chosen not in silo.faulty_tasks:
                return
        raise NoPlanError(
            f"The silo can serve task {chosen!r} to nobody at present. Ask its operator, whose log says why."
        )

    async def _prepared(self, name: str) -> TaskCard:
        """Return a task's card once the silo has its head for this client's map; other tasks are not waited for.

        Raises:
            OverloadedError: that takes longer than this client waits.
        """
        ends = monotonic() + self._session.timeout
        while (offer := await self._offered()).route is not None and (await self.task(name)).preparing:
            if monotonic() >= ends:
                raise OverloadedError(
                    f"The silo is still preparing task {name!r} for this client's map. Ask again in a minute.",
                    retry_after=60.0,
                )

            async def attempt(calls: Calls, seconds: float, kind: RowKind = offer.route.kind) -> Listing:
                return await calls.classification.tasks(kind, seconds, name)

            began, listing = monotonic(), await self._session.retried(attempt)
            if name in listing.faults:
                raise listing.faults[name]
            renewed = {card.name: card for card in listing.cards}
            offer = replace(offer, tasks=tuple(renewed.get(card.name, card) for card in offer.tasks))
            self._offer = self._with_own_thresholds(offer, await self.recentring())
            if (await self.task(name)).preparing:
                await asyncio.sleep(max(0.0, _POLL_SECONDS - (monotonic() - began)))
        return await self.task(name)

    async def _ready(self, name: str | None) -> Ready:
        await self._require_possible(name)
        card = await self.task(name)
        if not card.plans and not card.preparing:
            await self._offered(refresh=True)  # an alignment may have ended meanwhile
            card = await self.task(name)
        if card.preparing:
            card = await self._prepared(card.name)
        offer = await self._offered()
        if offer.route is None:
            encoder = (await self.encoder()).card
            named = f"{encoder.name} ({encoder.fingerprint[:12]}…)"
            raise no_map(named, EMBEDDINGS, self.routes.options.placement)
        if not card.plans:
            raise InvalidInputError(
                f"The silo does not serve task {card.name!r} through map {offer.route.card.id}: no parameter set holds "
                "its logits. Ask the silo's operator, whose log says why."
            )
        offer.route.require_dimension(card.plans[0])
        return Ready(card, offer.route, (await self.routes.silo()).limits)


def _chosen(offer: _Offer, name: str | None) -> TaskCard:
    cards, faults = {card.name: card for card in offer.tasks}, offer.faults
    wanted = next(iter(faults)) if name is None and not cards and len(faults) == 1 else name
    if wanted is not None and wanted in faults:
        raise faults[wanted]
    return cards[chosen_name(tuple(cards), name, "task")]


def _places(plan: PackingPlan, rows: int) -> int:
    """Return how many rows the ciphertexts of so many rows have room for."""
    full, rest = divmod(rows, plan.rows)
    return full * plan.rows + (rest + free_rows(plan, rest) if rest else 0)


@lru_cache(maxsize=4096)
def _milliseconds(plan: PackingPlan, rows: int) -> float:
    """Return the predicted time of so many rows, in full batches and a last one."""
    full, rest = divmod(rows, plan.rows)
    return full * plan.cost.milliseconds + (plan.cost_of(rest).milliseconds if rest else 0.0)
