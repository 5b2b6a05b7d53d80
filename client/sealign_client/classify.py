"""Classification: texts to embeddings at the client, to encrypted logits at the silo, to labels at the client."""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sealign.ckks import PackingPlan
from sealign.encoders import Encoder, EncoderSettings, embed, lengths
from sealign.encoders.checks import as_texts
from sealign.encoders.encoder import Embeddings
from sealign.encoders.settings import LongTexts
from sealign.errors import InvalidInputError, SealignError, UnknownMapError
from sealign_client.canaries import Canaries, at_most
from sealign_client.classification_tasks import ClassificationTasks, Progress, Ready
from sealign_client.exchange import Exchange, Matrix, Watch
from sealign_client.feed import Feed
from sealign_client.inputs import faulty_text
from sealign_client.local.recentring import OwnThresholds, Recentring, require_enough_for_thresholds
from sealign_client.passes import Passes
from sealign_client.results import Classification, classifications
from sealign_client.retry import RETRIED
from sealign_client.routes import Routes
from sealign_client.sharing import MAX_SHARED_ROWS, Answer, CheckedRows, Sharing

if TYPE_CHECKING:
    from sealign_client.session import Calls
    from sealign_client.transport import Query, Reply


_SHARE = 0.9
"""Share of what a key may tell that one batch may use up."""

_PIECE = 128
"""Maximum number of texts that are embedded and sent together where results appear as they are made."""
_LANES = 3
"""Pieces under way: one is embedded, one is at the silo, one waits for texts."""


@dataclass(frozen=True)
class _Answers:
    """Results of a piece of texts, and why there are no more of them."""

    results: list[Classification]
    fault: InvalidInputError | None = None


class Classifier(ClassificationTasks):
    """Classifies with one encoder through one silo.

    Concurrent callers share passes of the encoder, and ciphertexts where the plans say that this is cheaper.
    Canaries stand among the rows.
    """

    def __init__(
        self, routes: Routes, encoder: Encoder | EncoderSettings | None, recentring: Path | None, canaries: Canaries
    ) -> None:
        super().__init__(routes, encoder, recentring)
        self.canaries = canaries
        self._passes = Passes(self._pass, self._lengths)
        self._sharing = Sharing(self._asked, self._session.timeout)

    @property
    def waiting(self) -> int:
        """Number of texts that wait to be embedded."""
        return self._passes.waiting

    async def classify(
        self,
        texts: Sequence[str],
        task: str | None = None,
        progress: Progress | None = None,
        *,
        verify: bool | None = None,
        long_texts: LongTexts | None = None,
    ) -> list[Classification]:
        """Return classifications of texts, in their order; see `AsyncClient.classify`.

        Args:
            long_texts: what becomes of texts beyond the model's window; by default as the encoder's settings say.
        """
        card = (await self._ready(task)).card  # before the expensive embedding
        if not texts:
            return []
        rows = await self._passes.embed(as_texts(texts), long_texts, progress)
        return await self.classify_rows(rows, card.name, verify=verify)

    async def classify_rows(
        self,
        rows: NDArray[np.floating],
        task: str | None = None,
        progress: Progress | None = None,
        *,
        verify: bool | None = None,
    ) -> list[Classification]:
        """Return classifications of embeddings, (n, d), in their order."""
        ready, outputs = await self.outputs(rows, task, progress, verify=verify)
        return classifications(ready.card, outputs, self._thresholds(ready))

    async def classify_each(self, texts: Iterable[str], task: str | None = None) -> AsyncIterator[Classification]:
        """Yield classifications as they are made, in constant memory.

        Some texts are embedded while others are at the silo. One that comes late keeps no earlier result back.
        """
        await self._ready(task)  # before the first text is drawn
        feed, turn, drawn = Feed(texts, _LANES * _PIECE), asyncio.Lock(), count(1)

        async def lane() -> _Answers | None:
            async with turn:
                piece = await asyncio.get_running_loop().run_in_executor(None, feed.take, _PIECE)
                numbers = [next(drawn) for _ in piece]
            return await self._answers(piece, numbers, task) if piece else None

        lanes = deque(asyncio.ensure_future(lane()) for _ in range(_LANES))
        try:
            while (answers := await lanes.popleft()) is not None:
                lanes.append(asyncio.ensure_future(lane()))
                for result in answers.results:
                    yield result
                if answers.fault is not None:
                    raise answers.fault
        finally:
            feed.close()
            for unfinished in lanes:
                unfinished.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _answers(self, piece: Sequence[str], numbers: Sequence[int], task: str | None) -> _Answers:
        """Return what was made of a piece of texts: up to the first one that cannot be used, by its number."""
        try:
            return _Answers(await self.classify(piece, task))
        except InvalidInputError:
            results: list[Classification] = []
            for number, text in zip(numbers, piece, strict=True):
                try:
                    results += await self.classify([text], task)
                except InvalidInputError as fault:  # noqa: PERF203 - the first faulty text is looked for
                    return _Answers(results, faulty_text(number, fault))
            return _Answers(results)

    async def _pass(self, texts: Sequence[str], long_texts: LongTexts | None) -> Embeddings:
        encoder = await self.encoder()
        return (await self._session.run(partial(embed, encoder, texts, long_texts=long_texts))).rows

    async def _lengths(self, texts: Sequence[str]) -> list[int]:
        return await self._session.run(lengths, await self.encoder(), texts)

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
    ) -> tuple[Ready, Matrix]:
        """Return outputs, (n, outputs), and the head that gave them: one head, whatever changes meanwhile."""
        rows = CheckedRows.of(await self._ready(task), embeddings)
        if progress is None and verify is None and len(rows) <= MAX_SHARED_ROWS:
            return await self._sharing.outputs(rows)
        return await self._asked(rows, progress, verify=verify)

    async def _asked(
        self, given: CheckedRows, progress: Progress | None = None, *, verify: bool | None = None
    ) -> Answer:
        """Ask for the outputs of rows, with canaries among them if there are to be any."""
        told = None if progress is None else at_most(len(given), progress)
        return await self.canaries.asked(given, partial(self._asked_all, progress=told, verify=verify))

    async def _asked_all(self, given: CheckedRows, progress: Progress | None, *, verify: bool | None) -> Answer:
        """Ask for the outputs of rows, batch by batch, until all have come."""
        ready, rows, done = given.ready, given.prepared, list[Matrix]()
        retry, alone = self._session.patience(), False
        while (answered := sum(map(len, done))) < len(rows):
            target = ready.target(len(rows) - answered, verify)
            exchange = Exchange(self._session, target)
            batches = target.batches(rows[answered:], _SHARE * target.plan.parameters.spare_bits(self._session.table))
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
                    rows = CheckedRows.of(ready, given.embeddings).prepared
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

    def _thresholds(self, ready: Ready) -> dict[str, float] | None:
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
        rows = await self._passes.embed(as_texts(texts), None, progress)
        made = Recentring.of(rows, (await self.encoder()).card.fingerprint)
        self._use(made)
        if thresholds:
            ready, outputs = await self.outputs(rows, task, progress)
            made = replace(made, thresholds=OwnThresholds.of(ready.card, ready.route.card.id, outputs))
            self._use(made)
        return made

    def _use(self, recentring: Recentring) -> None:
        self._recentring, self._offer = recentring, None
