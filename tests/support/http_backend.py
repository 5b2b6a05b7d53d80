"""A client of no silo at all, for tests of the HTTP interface alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders.settings import LongTexts
from sealign.errors import InvalidInputError, NoMapError, NotFoundError, SealignError
from sealign.generation.sampling import Sampling
from sealign.protocol import MapCard, PublicSetCard
from sealign_client.daemon.http.backend import (
    AlignmentMode,
    Inspection,
    Prediction,
    SiloStatus,
    Stage,
    TaskStatus,
    Token,
)
from sealign_client.results import CanaryReport, Timing

LABELS = ("acq", "crude", "grain")
WORDS = ("The", " rates", " rose", " again", ".")
DIMENSION = 8
TIMING = Timing(encrypt=1.0, server=2.5, decrypt=0.5, round_trip=5.0, request_bytes=3000, reply_bytes=1000)
"""Of each token."""
WINDOW = 2000
"""Characters; longer texts are beyond the model's window."""


@dataclass
class FakeBackend:
    """Answers by the texts' digests.

    Attributes:
        failure: raised by everything that asks the silo.
        aligned: whether there is a map.
        delay: seconds that work takes.
        cancelled: calls that were cancelled at work.
        seen: keyword arguments of the last generation.
    """

    encoder_name: str | None = "fake-encoder"
    model_name: str | None = "fake-model"
    failure: Exception | None = None
    aligned: bool = True
    delay: float = 0.0
    cancelled: int = 0
    started: int = 0
    token_failure: SealignError | None = None
    seen: dict[str, object] = field(default_factory=dict)

    async def silo(self) -> SiloStatus:
        self._reach()
        return SiloStatus("newswire", "0.1.0", "CN=client")

    async def tasks(self) -> list[TaskStatus]:
        self._reach()
        return [
            TaskStatus("topics", "Topics of newswire", "classification", self.aligned, LABELS, 0.95, 0.94),
            TaskStatus("prose", "English prose", "generation", self.aligned),
        ]

    async def maps(self) -> list[MapCard]:
        self._reach()
        return [_map("plain")] if self.aligned else []

    async def public_sets(self) -> list[PublicSetCard]:
        self._reach()
        general = {rows: PublicSet.named(f"general:{rows}") for rows in (3, 40)}
        held = [PublicSetCard(texts.digest, rows, "any name") for rows, texts in general.items()]
        return [*held, PublicSetCard("b" * 64, 4000, "general-4000")]

    async def canaries(self) -> list[CanaryReport]:
        return [CanaryReport("topics", 120, 1, True, 0.999999, 1.0)]

    async def classify(self, texts: Sequence[str], task: str | None, long_texts: LongTexts | None) -> list[Prediction]:
        await self._work(task, "topics")
        for number, text in enumerate(texts, 1):
            if text.isspace():
                raise InvalidInputError(f"text {number} is empty or only whitespace; leave it out")
            if len(text) > WINDOW and long_texts in (None, "refuse"):
                raise InvalidInputError(f"text {number} is beyond the model's window; truncate or split it")
        return [_prediction(text) for text in texts]

    async def generate(
        self,
        prompt: str,
        task: str | None,
        max_tokens: int | None,
        sampling: Sampling,
        alternatives: int,
        mixture: bool,
    ) -> AsyncIterator[Token]:
        self.seen = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "sampling": sampling,
            "alternatives": alternatives,
            "mixture": mixture,
        }
        silo = -0.75 if mixture else None
        count = min(max_tokens or 64, len(WORDS))
        for number in range(count):
            await self._work(task, "prose")
            if self.token_failure is not None and number == 2:
                raise self.token_failure
            finish = None if number + 1 < count else "end" if count == len(WORDS) else "length"
            near = tuple((WORDS[(number + k) % len(WORDS)], -0.5 - k) for k in range(alternatives))
            yield Token("prose", WORDS[number], -0.5, TIMING, near, finish, silo)

    async def inspect(self, text: str, task: str | None) -> Inspection:
        (prediction,) = await self.classify([text], task, None)
        digest = sha256(text.encode()).digest()
        return Inspection(
            prediction=prediction,
            stages=(
                Stage("embed", 7.5),
                Stage("encrypt", 1.5),
                Stage("network", 3.0),
                Stage("silo", 1.0),
                Stage("decrypt", 0.5),
            ),
            embedding=_rows([text])[0],
            key_id=digest.hex(),
            parameters="ckks-2048-40",
            query=digest * 500,
            reply=digest * 300,
            request_id="0123456789abcdef",
            identity="CN=client",
            encoder="fake-encoder",
            fingerprint="f" * 64,
            silo_ms=1.0,
        )

    async def embed(self, texts: Sequence[str], progress: Callable[[int], None]) -> NDArray[np.float32]:
        progress(len(texts))
        return _rows(texts)

    async def align(self, texts: PublicSet, mode: AlignmentMode, report: Callable[[str, float], None]) -> MapCard:
        self._reach()
        for step in range(5):
            report("embedding public texts", step / 5)
            await asyncio.sleep(self.delay)
        self.aligned = True
        return _map(mode, len(texts))

    async def _work(self, task: str | None, only: str) -> None:
        self._reach()
        if task not in (None, only):
            raise NotFoundError(f"There is no task {task!r}. Tasks: {only}.")
        if not self.aligned:
            raise NoMapError("There is no map yet. Align first.")
        self.started += 1
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def _reach(self) -> None:
        if self.failure is not None:
            raise self.failure


def _prediction(text: str) -> Prediction:
    logits = np.frombuffer(sha256(text.encode()).digest()[: len(LABELS)], np.uint8) / 64
    probabilities = np.exp(logits) / np.exp(logits).sum()
    return Prediction(
        task="topics",
        labels=LABELS,
        probabilities=tuple(map(float, probabilities)),
        logits=tuple(map(float, logits)),
        calibrated=True,
        score=("reject_margin", float(logits.max()), 1.0),
        in_distribution=bool(logits.max() >= 1.0),
        tokens=len(text.split()),
    )


def _rows(texts: Sequence[str]) -> NDArray[np.float32]:
    rows = np.array([list(sha256(text.encode()).digest()[:DIMENSION]) for text in texts], np.float32) - 127
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _map(name: str, rows: int = 4000) -> MapCard:
    return MapCard(
        sha256(name.encode()).hexdigest()[:32], "f" * 64, "a" * 64, rows, 0.1, 0.61, 0.83, 0.9, "2026-11-26T18:00:00Z"
    )
