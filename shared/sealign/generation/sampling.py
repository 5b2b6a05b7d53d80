"""From the silo's logits to the next token: greedy or random, and where to stop.

The randomness protects nothing, so it is a seeded generator and not the operating system's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sealign.errors import InvalidInputError


class Sampling(BaseModel):
    """How tokens are chosen.

    Penalty: Keskar et al., "CTRL" (arXiv 1909.05858, section 4.1). Top-k: Fan, Lewis and Dauphin, "Hierarchical Neural
    Story Generation" (arXiv 1805.04833, section 5.4). Top-p: Holtzman et al., "The Curious Case of Neural Text
    Degeneration" (arXiv 1904.09751, section 3.1). Runs that are not repeated: Paulus, Xiong and Socher, "A Deep
    Reinforced Model for Abstractive Summarization" (arXiv 1705.04304, section 2.5). They apply in this order, runs and
    temperature after the penalty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=0.0, ge=0.0, le=100.0, description="0 takes the likeliest token each time.")
    top_k: int | None = Field(default=None, ge=1, description="Sample among so many of the likeliest tokens.")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="Sample among the likeliest that reach this mass.")
    repetition_penalty: float = Field(default=1.0, ge=0.1, le=10.0, description="Above 1, tokens seen are less likely.")
    no_repeat_run: int = Field(
        default=4,
        ge=0,
        le=32,
        description="No run of this number of tokens is written twice, the prompt included; 0 allows all.",
    )
    seed: int = Field(default=0, ge=0, description="Of the generator; the same seed and logits give the same tokens.")
    stop: tuple[str, ...] = Field(default=(), max_length=16, description="Texts that end a generation before them.")


@dataclass(frozen=True)
class Choice:
    """One token chosen.

    Attributes:
        id: of the token.
        log_probability: natural, of that token under the logits as they came, temperature 1, without penalty, among
            the tokens allowed.
        alternatives: the likeliest tokens and their log-probabilities, likeliest first, as many as asked for.
    """

    id: int
    log_probability: float
    alternatives: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses one generation's tokens, one after the other.

    Args:
        sampling: how.
        allowed: (V,), the outputs that may be chosen, as `CausalTokenizer.allowed` gives them.
        seen: tokens of the prompt, which count as written.
        alternatives: number of likeliest tokens told with each choice.
    """

    def __init__(
        self, sampling: Sampling, allowed: NDArray[np.bool_], seen: Sequence[int] = (), alternatives: int = 0
    ) -> None:
        self._sampling = sampling
        self._allowed = allowed
        self._written = [int(number) for number in seen]
        self._seen = np.zeros(len(allowed), dtype=np.bool_)
        self._seen[[number for number in seen if number < len(allowed)]] = True
        self._alternatives = min(alternatives, int(allowed.sum()))
        self._random = np.random.default_rng(sampling.seed)

    def choose(self, logits: NDArray[Any]) -> Choice:
        """The next token by the logits, (V,), which then counts as seen.

        Raises:
            InvalidInputError: not V logits, or some that are not finite.
        """
        if logits.shape != self._allowed.shape or not np.isfinite(logits).all():
            raise InvalidInputError(
                f"the logits have shape {logits.shape} or are not all finite; {self._allowed.shape} are needed"
            )
        scores = np.where(self._allowed, logits.astype(np.float64), -np.inf)
        log_probabilities = _log_softmax(scores)
        penalised = self._without_repeats(self._penalised(scores))
        if self._sampling.temperature == 0:
            chosen = int(penalised.argmax())
        else:
            chosen = self._drawn(penalised / self._sampling.temperature)
        self._seen[chosen] = True
        self._written.append(chosen)
        likeliest = _largest(log_probabilities, self._alternatives)
        return Choice(
            chosen,
            float(log_probabilities[chosen]),
            tuple((int(number), float(log_probabilities[number])) for number in likeliest),
        )

    def log_probability(self, logits: NDArray[Any], chosen: int) -> float:
        """Return the natural log-probability of a token under logits, (V,), among the tokens allowed."""
        scores = np.where(self._allowed, logits.astype(np.float64), -np.inf)
        return float(_log_softmax(scores)[chosen])

    def _penalised(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        penalty = self._sampling.repetition_penalty
        if penalty == 1:
            return scores
        return np.where(self._seen, np.where(scores > 0, scores / penalty, scores * penalty), scores)

    def _without_repeats(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Leave out tokens that would end a run written before, unless nothing else is left."""
        length, written = self._sampling.no_repeat_run, self._written
        if not 0 < length <= len(written):
            return scores
        begun = written[len(written) - length + 1 :]
        starts = range(len(written) - length + 1)
        repeats = [written[at + length - 1] for at in starts if written[at : at + length - 1] == begun]
        left = scores.copy()
        left[[number for number in repeats if number < len(left)]] = -np.inf
        return left if np.isfinite(left).any() else scores

    def _drawn(self, scores: NDArray[np.float64]) -> int:
        count = min(self._sampling.top_k or len(scores), int(np.isfinite(scores).sum()))
        candidates = _largest(scores, count)
        mass = np.cumsum(np.exp(_log_softmax(scores[candidates])))
        within = int(np.searchsorted(mass, self._sampling.top_p)) + 1  # the smallest set that reaches top_p
        mass = mass[:within]
        drawn = int(np.searchsorted(mass, self._random.random() * mass[-1], side="right"))
        return int(candidates[min(drawn, len(mass) - 1)])


class StopStrings:
    """Text on its way out, held back as long as it may be the beginning of a stop string.

    Attributes:
        stopped: a stop string has come; nothing more is written.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise InvalidInputError("a stop string is empty, so nothing would be generated; leave it out")
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def add(self, piece: str) -> str:
        """What can be written now that ``piece`` has come: all before the first stop string, if there is one."""
        if self.stopped:
            return ""
        self._held += piece
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            written, self._held = self._held[: min(found)], ""
            return written
        keep = max((_begun(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        written, self._held = self._held[:cut], self._held[cut:]
        return written

    def rest(self) -> str:
        """What was held back, once nothing more comes."""
        written, self._held = self._held, ""
        return written


def _begun(text: str, stop: str) -> int:
    """Length of the longest beginning of ``stop``, not all of it, at the end of ``text``."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)


def _log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = scores - scores.max()
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return normalised


def _largest(scores: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Indices of the largest scores, largest first; the smaller index first among equals."""
    if count < len(scores):
        threshold = np.partition(scores, len(scores) - count)[len(scores) - count] if count else np.inf
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:count]
