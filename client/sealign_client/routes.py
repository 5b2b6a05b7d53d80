"""Which map a client's rows take to a space of the silo, who applies it, and how rows are prepared for encryption."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, PublicSet
from sealign.ckks import PackingPlan, checked_rows
from sealign.encoders import EncoderCard
from sealign.errors import BudgetExhaustedError, InvalidInputError, NoMapError, NotFoundError, NotPermittedError
from sealign.protocol import (
    ClientMap,
    MapCard,
    Placement,
    RowKind,
    SiloCard,
    SpaceCard,
    generation_task_of,
)
from sealign_client.local.maps import ClientMaps, Lane, Pin
from sealign_client.local.recentring import Recentring
from sealign_client.local.unfinished import Rows
from sealign_client.options import CHANCE
from sealign_client.session import Calls, Session


@dataclass(frozen=True)
class Source:
    """What gives the client's rows of a public set.

    Attributes:
        encoder: that makes them.
        rows: makes them, (n, d); its second argument is told how many texts were done.
    """

    encoder: EncoderCard
    rows: Callable[[PublicSet, Callable[[int], None] | None], Awaitable[Rows]]


@dataclass(frozen=True, eq=False)
class Route:
    """The way of an encoder's rows to a space of the silo.

    Attributes:
        kind: what a query says about its rows.
        card: the map that they take.
        own: that map, if the client applies it.
        recentring: the client's own texts' mean, on which rows are centred; None for rows as they are.
    """

    kind: RowKind
    card: MapCard
    own: AffineMap | None = None
    recentring: Recentring | None = None

    @property
    def is_registered(self) -> bool:
        """Whether the silo knows enough about the map to calibrate heads for it."""
        return not isinstance(self.kind.map, ClientMap) or self.kind.map.registration is not None

    def prepared(self, rows: NDArray[np.floating], plan: PackingPlan, *, clip: bool) -> NDArray[np.float64]:
        """Return what is encrypted under a plan in place of an encoder's rows, (n, d).

        Rows are mapped if the client has the map, and centred on the mean of the client's own texts if it knows one.
        Mapped rows, and others with ``clip``, are projected to the ball of the plan's row norm. All of the silo's
        centred embeddings lie in it, so projecting a prediction brings it nearer to them.

        Raises:
            InvalidInputError: wrong shape, values that are not finite, or embeddings that are too long.
        """
        dimension = plan.dimension if self.own is None else len(self.own.weight)
        if rows.ndim != 2 or rows.shape[1] != dimension:
            raise InvalidInputError(
                f"The embeddings have shape {rows.shape}, and the map takes rows of dimension {dimension}. Check that "
                "they come from this client's encoder."
            )
        placed = rows.astype(np.float64) if self.own is None else self.own.apply(rows)
        if self.recentring is not None:
            mean = self.recentring.mean[None]
            if self.own is None:
                checked_rows(placed, replace(plan, row_norm=1.0))  # of norm one, as plain embeddings must be
            placed = placed - (mean if self.own is None else self.own.apply(mean))
        if clip or self.own is not None:
            norms = np.linalg.norm(placed, axis=1, keepdims=True)
            placed = placed * (plan.row_norm / np.maximum(norms, plan.row_norm))
        return checked_rows(placed, plan)

    def require_dimension(self, plan: PackingPlan) -> None:
        """Refuse a plan of another dimension than this route leads to.

        Raises:
            InvalidInputError: the silo has changed.
        """
        if self.own is not None and plan.dimension != self.own.weight.shape[1]:
            raise InvalidInputError("The silo's plans are for another dimension than this client's map. Align again.")


@dataclass(frozen=True)
class RouteOptions:
    """How routes are chosen.

    Attributes:
        placement: where maps are applied; None for at the client if it has one, else at the silo.
        register: whether maps that the client applies are registered with the silo.
    """

    placement: Placement | None = None
    register: bool = True


class Routes:
    """Chooses maps for one client.

    Args:
        session: with the silo.
        maps: pins, and maps that the client applies.
        options: how to choose.
    """

    def __init__(self, session: Session, maps: ClientMaps, options: RouteOptions) -> None:
        self.session = session
        self.maps = maps
        self.options = options
        self._silo: SiloCard | None = None
        self._mentioned: set[str] = set()

    async def silo(self, *, refresh: bool = False) -> SiloCard:
        """Return the silo's card, asked once until ``refresh``."""
        if self._silo is None or refresh:
            self._silo = await self.session.describe()
        return self._silo

    async def space(self, name: str, encoder: EncoderCard | None = None) -> SpaceCard:
        """Return a space's card, as an encoder of this client sees it; without one, with the maps of all encoders."""
        return await self.session.retried(lambda calls, seconds: calls.alignment.space(name, encoder, seconds))

    async def require_any_map(self, name: str, encoder: str) -> None:
        """Refuse a client that has no map to a space from any encoder: that needs no model to be known.

        Args:
            name: of the space.
            encoder: what the error calls the one that is not loaded yet.

        Raises:
            NoMapError: there is none, here or at the silo.
        """
        silo = (await self.silo()).name
        if any((pin.lane.silo, pin.lane.space) == (silo, name) for pin in self.maps.pins()):
            return
        if not (await self.space(name)).maps:
            raise no_map(encoder, name, self.options.placement)

    async def lane(self, space: SpaceCard, encoder: EncoderCard) -> Lane:
        """Return under which name a map from an encoder to a space is pinned."""
        return Lane((await self.silo()).name, space.name, space.encoder.fingerprint, encoder.fingerprint)

    async def find(self, space: SpaceCard, encoder: EncoderCard, recentring: Recentring | None = None) -> Route | None:
        """Return the route to a space; None if there is no map yet.

        The first map of the silo's that is used without an alignment is pinned, and no other is used from then on. It
        is the newest that is better than chance: one that an alignment refused is not used by the next call.

        Raises:
            NoMapError: the silo does not serve the pinned map any more.
            StorageError, InvalidInputError: a file of pins or maps is damaged.
        """
        lane, recentred = await self.lane(space, encoder), recentring is not None
        if self.options.placement is not Placement.SILO:
            pin = self.maps.pinned(lane, Placement.CLIENT)
            if pin is not None and any(pin.card.public_set == held.digest for held in space.public_sets):
                own = await self.session.run(self.maps.load, pin)
                kind = ClientMap(pin.card.public_set, await self._registration(pin, own))
                return Route(RowKind(encoder.fingerprint, kind, recentred), pin.card, own, recentring)
        if self.options.placement is Placement.CLIENT:
            return None
        card = await self._pinned_at_silo(lane, space)
        return None if card is None else Route(RowKind(encoder.fingerprint, card.id, recentred), card, None, recentring)

    async def _pinned_at_silo(self, lane: Lane, space: SpaceCard) -> MapCard | None:
        offered = [card for card in space.maps if card.encoder == lane.encoder]
        pin = self.maps.pinned(lane, Placement.SILO)
        if pin is None:
            chosen = next((card for card in offered if card.explained_variance > CHANCE), None)
            if chosen is not None:
                await self.session.run(self.maps.pin, Pin(lane, Placement.SILO, chosen))
            return chosen
        for card in offered:
            if card.id == pin.card.id:
                if card is not offered[0]:
                    self._mention_newer(card, offered[0])
                return card
        raise NoMapError(
            f"The silo no longer serves map {pin.card.id}, which this client uses with space {space.name!r}; it offers "
            f"{len(offered)} other maps. Align again, or accept another map: sealign maps delete {pin.card.id[:12]}"
        )

    def _mention_newer(self, used: MapCard, newer: MapCard) -> None:
        """Say once that the silo has another map since the one that is pinned: its operator has refined it, maybe."""
        if newer.id in self._mentioned:
            return
        self._mentioned.add(newer.id)
        refined = "" if newer.divergence is None else f", refined to a divergence of {newer.divergence:.4f}"
        warnings.warn(
            f"The silo has map {newer.id[:12]} of {newer.created}{refined}, newer than map {used.id[:12]} that this "
            f"client uses. To use the newer one: sealign maps delete {used.id[:12]}",
            stacklevel=2,
        )

    async def _registration(self, pin: Pin, own: AffineMap) -> str | None:
        """Return what the silo calls a map's registration; registers the map if it never was."""
        if not (self.options.register and pin.registers):
            return None
        if pin.registration is None:
            await self.register(pin, own)
            pin = self.maps.pinned(pin.lane, pin.placement) or pin
        return pin.registration

    async def register(self, pin: Pin, own: AffineMap) -> None:
        """Register a map that the client applies; a silo that refuses leaves it unregistered."""
        covariances = own.covariances
        if covariances is None:
            return

        async def attempt(calls: Calls, seconds: float) -> str:
            lane = pin.lane
            return await calls.alignment.register_map(lane.space, lane.encoder, own.public_set, covariances, seconds)

        try:
            registration = await self.session.retried(attempt)
        except (NotPermittedError, BudgetExhaustedError):
            return
        await self.session.run(self.maps.pin, replace(pin, registration=registration))

    async def forget_registration(self, space: SpaceCard, encoder: EncoderCard) -> None:
        """Register the map of a lane again when it is next needed: the silo has evicted it."""
        pin = self.maps.pinned(await self.lane(space, encoder), Placement.CLIENT)
        if pin is not None and pin.registration is not None:
            await self.session.run(self.maps.pin, replace(pin, registration=None))


def no_map(encoder: str, space: str, placement: Placement | None) -> NoMapError:
    """Return the error that there is no map from an encoder yet, with what to do."""
    task = generation_task_of(space)
    option = "" if task is None else f" --generation {task}"
    where = "" if task is None else f', space="{space}"'
    if placement is Placement.CLIENT:
        return NoMapError(
            f"This client has no map of its own from {encoder} to space {space!r}. Align first: "
            f'client.align(public_texts, mode="encrypted"{where}), or '
            f"sealign align --mode encrypted{option} --public FILE"
        )
    return NoMapError(
        f"There is no map from {encoder} to space {space!r} yet. Align first: "
        f"client.align(public_texts{where}), or sealign align{option} --public FILE"
    )


def chosen_name(names: Sequence[str], name: str | None, kind: str) -> str:
    """Return the name of a task of the silo's; without one, that of the only task.

    Raises:
        NotFoundError: no such task.
        InvalidInputError: no name, and not exactly one task; or a name that is no text.
    """
    known = ", ".join(names) or "none"
    if name is None:
        if len(names) != 1:
            raise InvalidInputError(f"Name a {kind}. The silo's are: {known}.")
        return names[0]
    if not isinstance(name, str):
        raise InvalidInputError(f"The name of a {kind} is a text, not of type {type(name).__name__}.")
    if name not in names:
        raise NotFoundError(f"The silo has no {kind} {name[:64]!r}; its {kind}s are: {known}.")
    return name
