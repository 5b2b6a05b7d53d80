"""What the HTTP interface needs of a client, as plain values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders.settings import LongTexts
from sealign.generation.sampling import Sampling
from sealign.protocol import MapCard, PublicSetCard
from sealign_client.results import CanaryReport, Timing

AlignmentMode = Literal["plain", "encrypted"]


@dataclass(frozen=True)
class TaskStatus:
    """A task of the silo, as this daemon can use it.

    Attributes:
        labels: in the order of the logits; none for a generation task.
        ready: whether it can be used: the encoder or model has been aligned for it, and the silo serves it to the map.
        held_out_accuracy: of the head on the silo's own embeddings; None for a generation task.
        mapped_accuracy: promised for this daemon's rows; None where the silo knows too little about the map.
    """

    name: str
    description: str
    kind: Literal["classification", "generation"]
    ready: bool
    labels: tuple[str, ...] = ()
    held_out_accuracy: float | None = None
    mapped_accuracy: float | None = None


@dataclass(frozen=True)
class SiloStatus:
    """The silo, and who this daemon is to it."""

    name: str
    version: str
    identity: str


@dataclass(frozen=True)
class Prediction:
    """The classification of one text.

    Attributes:
        task: its name; the silo may have chosen it.
        probabilities, logits: in the order of `labels`.
        calibrated: whether temperature and thresholds were measured for this daemon's map.
        score: name, value and threshold of the out-of-distribution score that decides; None if the task has none.
        in_distribution: None where no score is calibrated.
        tokens: that the encoder read; 0 where it cannot say.
    """

    task: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    logits: tuple[float, ...]
    calibrated: bool
    score: tuple[str, float, float] | None
    in_distribution: bool | None
    tokens: int = 0

    @property
    def label(self) -> str:
        """The label with the largest logit."""
        return self.labels[max(range(len(self.labels)), key=self.logits.__getitem__)]


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        task: the generation task's name; the silo may have chosen it.
        text: what can be shown now; empty while it may be the beginning of a stop text.
        log_probability: under what was sampled from: the silo's head, or the mixture with this daemon's own model.
        alternatives: the likeliest tokens as text, with their log-probabilities.
        timing: of the request whose ciphertexts gave it.
        finish: "end", "stop", "length" or "window" for the last token; None for others.
        silo_log_probability: with a mixture, under the silo's head alone; None without one.
    """

    task: str
    text: str
    log_probability: float
    timing: Timing
    alternatives: tuple[tuple[str, float], ...] = ()
    finish: str | None = None
    silo_log_probability: float | None = None


@dataclass(frozen=True)
class Stage:
    """Time of one stage of a call, in milliseconds."""

    name: str
    ms: float


@dataclass(frozen=True, eq=False)
class Inspection:
    """One call, taken apart.

    Attributes:
        embedding: (d,), what the encoder made of the text.
        key_id: SHA-256 of the public key, in hexadecimal.
        parameters: name of the encryption parameter set.
        query, reply: the ciphertexts as sent and received.
        request_id: under which the silo records the call.
        identity: of this daemon, as the silo records it.
        encoder, fingerprint: name and fingerprint of the encoder.
        silo_ms: time that the silo spent on the ciphertexts.
    """

    prediction: Prediction
    stages: tuple[Stage, ...]
    embedding: NDArray[np.float32]
    key_id: str
    parameters: str
    query: bytes
    reply: bytes
    request_id: str
    identity: str
    encoder: str
    fingerprint: str
    silo_ms: float


class Backend(Protocol):
    """A client of one silo. Every method may raise a SealignError."""

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder; None if this daemon does not classify."""
        ...

    @property
    def model_name(self) -> str | None:
        """Name of the causal model; None if this daemon does not generate."""
        ...

    async def silo(self) -> SiloStatus:
        """Ask the silo who it is. Fails while it is away."""
        ...

    async def tasks(self) -> list[TaskStatus]:
        """Ask the silo for its tasks."""
        ...

    async def maps(self) -> list[MapCard]:
        """Return the maps that this daemon's encoder can use, the one in use first."""
        ...

    async def public_sets(self) -> list[PublicSetCard]:
        """Ask the silo for the public sets that this daemon's encoder can be aligned over."""
        ...

    async def canaries(self) -> list[CanaryReport]:
        """Return how the silo has answered canaries."""
        ...

    async def classify(self, texts: Sequence[str], task: str | None, long_texts: LongTexts | None) -> list[Prediction]:
        """Classify texts, in their order."""
        ...

    def generate(
        self,
        prompt: str,
        task: str | None,
        max_tokens: int | None,
        sampling: Sampling,
        alternatives: int,
        mixture: bool,
    ) -> AsyncIterator[Token]:
        """Continue a prompt, token by token; with ``mixture``, sampled from the mixture fitted at alignment."""
        ...

    async def inspect(self, text: str, task: str | None) -> Inspection:
        """Classify one text and keep what there is to see of the call."""
        ...

    async def embed(self, texts: Sequence[str], progress: Callable[[int], None]) -> NDArray[np.float32]:
        """Embed texts, shape (n, d). Nothing is sent."""
        ...

    async def align(self, texts: PublicSet, mode: AlignmentMode, report: Callable[[str, float], None]) -> MapCard:
        """Learn a map over public texts; report the stage's name and its fraction done."""
        ...
