"""Alignment with any space of a silo, plain or encrypted: from public texts to a pinned map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sealign.alignment import AffineMap, PublicSet, require_enough_texts
from sealign.errors import InvalidInputError, ReleaseRefusedError, SealignError
from sealign.files import write_atomically
from sealign.protocol import (
    EMBEDDINGS,
    AlignmentRequest,
    MapCard,
    Placement,
    PublicSetCard,
    SpaceCard,
    find_public_set,
)
from sealign_client.encrypted_alignment import AlignmentTask, EncryptedAlignment
from sealign_client.local.canaries import CanaryStore
from sealign_client.local.directory import private
from sealign_client.local.maps import Lane, Pin
from sealign_client.local.unfinished import Rows, UnfinishedAlignment
from sealign_client.options import CHANCE, AlignmentMode, AlignmentOptions
from sealign_client.routes import Routes, Source

if TYPE_CHECKING:
    from sealign_client.session import Calls

_CHUNK_BYTES = 1 << 18


class Aligner:
    """Aligns one source with one space.

    Args:
        routes: knows silo and pins.
        source: of the client's rows.
        space: name of the space.
        passphrase: protects the key of an encrypted alignment under way.
    """

    def __init__(self, routes: Routes, source: Source, space: str, passphrase: str | None) -> None:
        self._routes = routes
        self._session = routes.session
        self._source = source
        self._space = space
        self._passphrase = passphrase

    async def align(self, texts: PublicSet, options: AlignmentOptions) -> MapCard:
        """Learn the map and pin it; see `AsyncClient.align`."""
        mode = AlignmentMode(options.mode)
        space = await self._routes.space(self._space, self._source.encoder)
        held = find_public_set(space.public_sets, texts.digest, f"the silo's space {self._space!r}")
        if options.shared_examples is not None:
            texts = await self._with_examples(texts, options.shared_examples, options.accept_examples)
            space = await self._routes.space(self._space, self._source.encoder)
            held = find_public_set(space.public_sets, texts.digest, f"the silo's space {self._space!r}")
        align = self._encrypted if mode is AlignmentMode.ENCRYPTED else self._plain
        return await align(texts, space, held, options)

    async def _plain(
        self, texts: PublicSet, space: SpaceCard, held: PublicSetCard, options: AlignmentOptions
    ) -> MapCard:
        rows = await self._rows(texts, held, options)
        request = self._request(held)
        size = max(1, _CHUNK_BYTES // (4 * rows.shape[1]))
        chunks = [rows[start : start + size] for start in range(0, len(rows), size)]

        async def attempt(calls: Calls, _: float) -> MapCard:
            return await calls.alignment.align(request, chunks)

        card = await self._session.retried(attempt, long=True)
        if (card.encoder, card.public_set, card.rows) != (request.encoder.fingerprint, held.digest, len(rows)):
            raise InvalidInputError(
                "The silo answers with a map of another encoder or public set; it runs a faulty version. The map was "
                "not pinned."
            )
        require_better_than_chance(card.explained_variance, options)
        lane = await self._routes.lane(space, self._source.encoder)
        await self._session.run(self._routes.maps.pin, Pin(lane, Placement.SILO, card))
        await self._draw_canaries(rows)
        return card

    async def _encrypted(
        self, texts: PublicSet, space: SpaceCard, held: PublicSetCard, options: AlignmentOptions
    ) -> MapCard:
        require_enough_texts(held.rows, self._source.encoder.dimension, space.encoder.dimension)
        lane = await self._routes.lane(space, self._source.encoder)
        unfinished = await self._session.run(self._routes.maps.unfinished, lane, held.digest, self._passphrase)
        rows = await self._rows(texts, held, options, unfinished)
        task = AlignmentTask(self._request(held), space.encoder, rows)

        def keep(learned: AffineMap) -> None:
            require_better_than_chance(learned.quality.explained_variance, options)
            pin = Pin(lane, Placement.CLIENT, MapCard.of(learned), registers=options.register)
            self._routes.maps.pin(pin, learned)

        begin = partial(EncryptedAlignment, self._session, task, unfinished, keep, options.transfer)
        learned = await (await self._session.run(begin)).learn()
        await self._draw_canaries(rows)
        if options.register:
            await self._register(lane, learned)
        return MapCard.of(learned)

    async def _draw_canaries(self, rows: Rows) -> None:
        """Keep rows of some public texts, whatever the setting `canaries` says now."""
        if self._space == EMBEDDINGS:
            store = CanaryStore(self._routes.maps.directory)
            await self._session.run(store.draw, self._source.encoder.fingerprint, rows)

    async def _register(self, lane: Lane, learned: AffineMap) -> None:
        """Register the map now; if that fails, it is registered when it is first used."""
        pin = self._routes.maps.pinned(lane, Placement.CLIENT)
        try:
            if pin is not None and self._routes.options.register:
                await self._routes.register(pin, learned)
        except SealignError:
            return

    async def _rows(
        self,
        texts: PublicSet,
        held: PublicSetCard,
        options: AlignmentOptions,
        unfinished: UnfinishedAlignment | None = None,
    ) -> Rows:
        """Return the client's rows of the texts: those of an alignment under way, or new ones."""
        if unfinished is not None:
            if unfinished.begun is not None:
                return unfinished.begun.rows
            if held.releases_left == 0:  # before the expensive embedding
                raise ReleaseRefusedError(
                    f"The silo releases no cross-covariance over the public set {held.name} to this client any more: "
                    "another encoder or an earlier run has used up what it allows. Use the map that was learned, or "
                    "ask the silo's operator to raise max_releases."
                )
        rows = await self._source.rows(texts, options.progress)
        if len(rows) != held.rows:
            raise InvalidInputError(
                f"The silo has {held.rows} rows of the public set {held.name}, and this client {len(rows)}: their "
                "versions of Sealign differ. Use the same version."
            )
        return rows

    def _request(self, held: PublicSetCard) -> AlignmentRequest:
        return AlignmentRequest(self._space, self._source.encoder, held.digest, held.rows)

    async def _with_examples(
        self, texts: PublicSet, task: str, accept: Callable[[Sequence[str]], bool] | None
    ) -> PublicSet:
        """Return the public set joined by the shared examples of a task, once the caller has accepted them.

        Raises:
            InvalidInputError: the caller has not.
        """
        examples = await self._session.retried(
            lambda calls, seconds: calls.alignment.shared_examples(self._space, task, texts.digest, seconds)
        )
        joined = texts.joined(examples)
        path = self._routes.maps.directory / f"shared-examples-{joined.digest[:12]}.txt"
        await self._session.run(partial(_write_examples, path, examples))
        if accept is None or not accept(examples):
            raise InvalidInputError(
                f"The silo shares {len(examples)} texts of task {task!r}, which it chose, and would learn how your "
                f"encoder embeds them. They were written to {path} and not embedded. Read them, then accept: "
                "accept_examples=…, or --accept-examples."
            )
        return joined


def require_better_than_chance(explained_variance: float, options: AlignmentOptions) -> None:
    """Refuse a map that predicts no better than the mean.

    Raises:
        InvalidInputError: its explained variance is no more than chance, and the options do not accept that.
    """
    if explained_variance <= CHANCE and not options.accept_poor_map:
        raise InvalidInputError(
            f"The map explains {explained_variance:.4f} of the variance of the silo's embeddings, no more than chance: "
            "the encoders share nothing over this public set. It is not used. Choose another encoder or public set, or "
            "accept it: accept_poor_map=True, --accept-poor-map."
        )


def _write_examples(path: Path, examples: Sequence[str]) -> None:
    private(path.parent)
    write_atomically(path, "".join(f"{text}\n" for text in examples).encode(), mode=0o600)
