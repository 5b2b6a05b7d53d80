"""The HTTP interface's view of an :class:`AsyncClient`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders.checks import as_texts
from sealign.encoders.settings import LongTexts
from sealign.errors import InvalidInputError, UnavailableError
from sealign.generation.sampling import Sampling
from sealign.heads import softmax
from sealign.protocol import MapCard, PublicSetCard, TaskCard
from sealign_client.client import AsyncClient
from sealign_client.daemon.http.backend import (
    AlignmentMode,
    Inspection,
    Prediction,
    SiloStatus,
    Stage,
    TaskStatus,
    Token,
)
from sealign_client.daemon.room import require_room
from sealign_client.results import CanaryReport, Classification, Transfer

if TYPE_CHECKING:
    from sealign_client.transport import Query, Reply

_T = TypeVar("_T")

_SECONDS = 3.0
"""Patience with a silo that is asked how it is."""

_PIECE = 64
"""Texts that are embedded at a time, so that other callers have their turn."""


class ClientBackend:
    """A client of one silo, behind the HTTP interface.

    Args:
        client: classifies, generates and aligns.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder, as the settings have it; None if there is none."""
        return self._client.settings.encoder

    @property
    def model_name(self) -> str | None:
        """Name of the causal model, as the settings have it; None if there is none."""
        return self._client.settings.model

    async def silo(self) -> SiloStatus:
        """Ask the silo who it is."""
        card = await _soon(self._client.silo())
        return SiloStatus(card.name, card.version, card.identity)

    async def tasks(self) -> list[TaskStatus]:
        """Return the silo's tasks, as they were last described; described again if none can be used."""
        tasks = await _soon(self._tasks(refresh=False))
        return tasks if any(task.ready for task in tasks) else await _soon(self._tasks(refresh=True))

    async def _tasks(self, *, refresh: bool) -> list[TaskStatus]:
        tasks = []
        if self._client.classifies:
            tasks += [_task(card) for card in (await self._client.describe(refresh=refresh)).tasks]
        if self._client.generates:
            for described in await self._client.describe_generation(refresh=refresh):
                card = described.card
                tasks.append(TaskStatus(card.name, card.description, "generation", card.plan is not None))
        return tasks

    async def maps(self) -> list[MapCard]:
        """Return the encoder's maps, the one in use first."""
        if not self._client.classifies:
            return []
        described = await _soon(self._client.describe())
        used = [] if described.map is None else [described.map]
        return used + [card for card in described.space.maps if card not in used]

    async def public_sets(self) -> list[PublicSetCard]:
        """Return the public sets that the silo holds for this encoder; none without an encoder."""
        if not self._client.classifies:
            return []
        return list((await _soon(self._client.describe(refresh=True))).space.public_sets)

    async def canaries(self) -> list[CanaryReport]:
        """Return how the silo has answered canaries, for each version of a task."""
        return list(await self._client.canaries())

    async def classify(self, texts: Sequence[str], task: str | None, long_texts: LongTexts | None) -> list[Prediction]:
        """Classify texts together with those of other callers."""
        self._require_encoder()
        require_room(self._client, len(texts))
        results = await self._client.classifier.classify(texts, task, long_texts=long_texts)
        card = await self._client.classifier.task(task)
        return [_prediction(card, result) for result in results]

    async def generate(
        self,
        prompt: str,
        task: str | None,
        max_tokens: int | None,
        sampling: Sampling,
        alternatives: int,
        mixture: bool,
    ) -> AsyncIterator[Token]:
        """Continue a prompt."""
        if not self._client.generates:
            raise InvalidInputError("This daemon has no causal model. Start it with --model to generate text.")
        name = (await self._client.generator.task(task)).name
        pieces = (await self._client.generator.tokenizer(name)).pieces
        async for token in self._client.generate(prompt, name, max_tokens, sampling, alternatives, mixture):
            near = tuple((pieces[number], value) for number, value in token.alternatives)
            finish = None if token.finish is None else token.finish.value
            assert token.timing is not None  # noqa: S101 - each token is asked for
            silo = token.silo_log_probability
            yield Token(name, token.text, token.log_probability, token.timing, near, finish, silo)

    async def inspect(self, text: str, task: str | None) -> Inspection:
        """Classify one text by itself and keep what crossed the network."""
        self._require_encoder()
        as_texts([text])
        started = perf_counter()
        encoder = await self._client.encoder()
        rows = await self._client.session.run(partial(encoder.encode, [text]))
        watch, embedded, request_id = _Watch(), perf_counter(), secrets.token_hex(8)
        card = await self._client.classifier.task(task)
        result = await self._client.classifier.watched(rows, card.name, request_id, watch)
        ended = perf_counter()
        card = await self._client.classifier.task(task)
        return Inspection(
            prediction=_prediction(card, result),
            stages=(Stage("embed", (embedded - started) * 1e3), *watch.stages(embedded, ended)),
            embedding=rows[0],
            key_id=watch.query.matrix.key_id.hex(),
            parameters=next((p.parameters.name for p in card.plans if p.id == watch.query.matrix.plan), ""),
            query=b"".join(part.seed + part.words for part in watch.query.matrix.ciphertexts),
            reply=b"".join(part.outputs + part.mask for part in watch.reply.product.ciphertexts),
            request_id=request_id,
            identity=(await self._client.describe()).silo.identity,
            encoder=encoder.card.name,
            fingerprint=encoder.card.fingerprint,
            silo_ms=watch.reply.server_ms,
        )

    async def embed(self, texts: Sequence[str], progress: Callable[[int], None]) -> NDArray[np.float32]:
        """Embed texts, shape (n, d), and let other callers in between."""
        encoder = await self._client.encoder()
        rows = []
        for start in range(0, len(texts), _PIECE):
            piece = texts[start : start + _PIECE]
            rows.append(await self._client.session.run(partial(encoder.encode, piece)))
            progress(len(piece))
        return np.concatenate(rows)

    async def align(self, texts: PublicSet, mode: AlignmentMode, report: Callable[[str, float], None]) -> MapCard:
        """Learn a map over public texts, and use it from now on."""
        self._require_encoder()
        done = 0

        def embedded(count: int) -> None:
            nonlocal done
            done += count
            report("embedding public texts", done / len(texts))
            if done >= len(texts):
                report("the silo learns the map", 0.0)

        def transferred(now: Transfer) -> None:
            report("sending and receiving ciphertexts", (now.sent + now.received) / max(now.total, 1))

        report("embedding public texts", 0.0)
        return await self._client.align(texts, mode=mode, progress=embedded, transfer=transferred)

    def _require_encoder(self) -> None:
        if not self._client.classifies:
            raise InvalidInputError("This daemon has no encoder. Start it with --encoder to classify texts.")


class _Watch:
    """What crossed the network in the last attempt of a call, and when."""

    query: Query
    reply: Reply
    _sent: float
    _received: float

    def sent(self, query: Query) -> None:
        self.query, self._sent = query, perf_counter()

    def received(self, reply: Reply) -> None:
        self.reply, self._received = reply, perf_counter()

    def stages(self, started: float, ended: float) -> tuple[Stage, ...]:
        """Return the stages of a call whose rows were ready at ``started``, in seconds."""
        silo = self.reply.server_ms
        network = (self._received - self._sent) * 1e3 - silo
        return (
            Stage("encrypt", (self._sent - started) * 1e3),
            Stage("network", max(network, 0.0)),
            Stage("silo", silo),
            Stage("decrypt", (ended - self._received) * 1e3),
        )


async def _soon(asked: Awaitable[_T]) -> _T:
    """Wait a little for the silo, and not as long as a query may take.

    Raises:
        UnavailableError: the silo did not answer.
    """
    try:
        return await asyncio.wait_for(asked, _SECONDS)
    except asyncio.TimeoutError:
        raise UnavailableError(f"The silo did not answer within {_SECONDS:g} s. Retry.") from None


def _task(card: TaskCard) -> TaskStatus:
    return TaskStatus(
        name=card.name,
        description=card.description,
        kind="classification",
        ready=bool(card.plans),
        labels=card.labels,
        held_out_accuracy=card.held_out_accuracy,
        mapped_accuracy=card.mapped_accuracy,
    )


def _prediction(card: TaskCard, result: Classification) -> Prediction:
    """Return a result with probabilities, which are a softmax of logits where the silo could not calibrate them."""
    if result.probabilities is not None:
        probabilities = tuple(result.probabilities[label] for label in result.labels)
    else:
        probabilities = tuple(map(float, softmax(np.array([result.logits]))[0]))
    score = None
    if result.ood_scores and card.ood_thresholds:
        name, value = next(iter(result.ood_scores.items()))
        score = (name, value, card.ood_thresholds.get(name, 0.0))
    return Prediction(
        task=card.name,
        labels=result.labels,
        probabilities=probabilities,
        logits=result.logits,
        calibrated=result.probabilities is not None,
        score=score,
        in_distribution=result.in_distribution,
    )
