"""What a client tells the application."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sealign.generation.forecast import Compatibility, TokenCost
    from sealign.protocol import GenerationCard, MapCard, SiloCard, SpaceCard, TaskCard


@dataclass(frozen=True)
class Classification:
    """What the silo's classifier says about one text.

    Attributes:
        label: the label with the largest logit.
        index: its position among the task's labels.
        probability: its calibrated probability; None if the silo could not calibrate it for this client's map.
        probabilities: calibrated probabilities by label; None likewise.
        labels: the task's labels, in the order of logits.
        logits: rounded to the plan's precision.
        ood_scores: by name, larger for in-distribution texts.
        in_distribution: whether the first score reaches its threshold, the silo's or the client's own (`adapt`); None
            if neither was measured for this client's map.
    """

    label: str
    index: int
    probability: float | None
    probabilities: dict[str, float] | None
    labels: tuple[str, ...]
    logits: tuple[float, ...]
    ood_scores: dict[str, float]
    in_distribution: bool | None


@dataclass(frozen=True)
class Timing:
    """Milliseconds and bytes of one request, stage by stage.

    Attributes:
        encrypt, server, decrypt: time on the ciphertexts at client, silo, client.
        round_trip: everything but the embedding.
    """

    encrypt: float
    server: float
    decrypt: float
    round_trip: float
    request_bytes: int
    reply_bytes: int


@dataclass(frozen=True)
class CanaryReport:
    """How a silo has answered canaries since it first did, for one version of a task through one map.

    Attributes:
        task: its name.
        compared: answers that were compared with the first ones.
        wrong: those that were further from them than both promises of precision allow.
        is_alarm: whether an honest silo would have answered so with a chance of one in a million at most.
        confidence: 1 less the chance that an honest silo looks as bad as this; 0 while nothing is wrong.
        undetected_share: share of wrong answers up to which all of these would have been right in 1 case of 100 or
            more, if none is wrong: what is smaller may have been missed.
    """

    task: str
    compared: int
    wrong: int
    is_alarm: bool
    confidence: float
    undetected_share: float


@dataclass(frozen=True)
class Transfer:
    """How far an encrypted alignment has come.

    Attributes:
        sent, received: bytes of ciphertexts that the silo has summed, and that have come back.
        total: of both, at the end.
        note: something that a person should know, such as an interruption; usually empty.
    """

    sent: int
    received: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Description:
    """What a silo offers to a client's encoder.

    Attributes:
        silo: the silo, and who it says is calling.
        space: its embedding space, which the encoder is aligned with.
        map: the map in use; None before an alignment.
        tasks: without plans before an alignment.
    """

    silo: SiloCard
    space: SpaceCard
    map: MapCard | None
    tasks: tuple[TaskCard, ...]


@dataclass(frozen=True)
class Mixture:
    """A mixture of the silo's next-token distribution and the client's own, rewritten as the silo's tokens.

    Attributes:
        weight: of the client's own distribution, 0 to 1.
        positions: public ones that it was fitted on.
        perplexity: of the tokens that follow them, by the mixture.
        silo_perplexity: the same by the silo's distribution alone.
        own_perplexity: the same by the client's own alone.
    """

    weight: float
    positions: int
    perplexity: float
    silo_perplexity: float
    own_perplexity: float


@dataclass(frozen=True)
class GenerationDescription:
    """What a generation task offers to a client's causal model.

    Attributes:
        card: without a plan before an alignment.
        space: of the token states that the model is aligned with.
        map: the map in use; None before an alignment.
        mixture: fitted behind this map; None if none was.
    """

    card: GenerationCard
    space: SpaceCard
    map: MapCard | None
    mixture: Mixture | None = None


class Finish(str, enum.Enum):
    """Why a generation ended."""

    END = "end"
    """The silo's model ends the text here."""
    STOP = "stop"
    """A stop text came."""
    LENGTH = "length"
    """The maximum number of tokens, the caller's or the silo's."""
    WINDOW = "window"
    """The client's model can read no more."""


@dataclass(frozen=True)
class GeneratedToken:
    """One token of the silo's, as it came.

    Attributes:
        text: what can be shown now; empty while it may be the beginning of a stop text.
        id: of the token in the silo's vocabulary.
        log_probability: natural, at temperature 1, under what was sampled from: the silo's head for the mapped state,
            exact to the precision, or the mixture with the client's own distribution.
        alternatives: the likeliest tokens and their log-probabilities, as many as requested.
        finish: of the last token, why it is the last.
        silo_log_probability: with a mixture, under the silo's head alone; None without one.
        timing: milliseconds and bytes of the request whose ciphertexts gave this token.
    """

    text: str
    id: int
    log_probability: float
    alternatives: tuple[tuple[int, float], ...] = ()
    finish: Finish | None = None
    silo_log_probability: float | None = None
    timing: Timing | None = None


@dataclass(frozen=True)
class Forecast:
    """What generation may give and will cost, before anything is paid for.

    Attributes:
        compatibility: of the two tokenizers.
        cost: of a token; by a typical head before an alignment.
        explained_variance: of the silo's states, by the map; None before an alignment.
        divergence: of what the head predicts from mapped states from what it predicts from the silo's own, nats a
            token; None if the map was not refined. A refined map is better by it and explains less of the states.
        model_seconds: the client's own model, for one more token.
    """

    compatibility: Compatibility
    cost: TokenCost
    explained_variance: float | None
    divergence: float | None
    model_seconds: float


def classifications(
    task: TaskCard, outputs: NDArray[np.float64], thresholds: Mapping[str, float] | None
) -> list[Classification]:
    """Return outputs, shape (n, outputs), as classifications.

    Args:
        task: whose outputs they are.
        outputs: as decrypted.
        thresholds: of out-of-distribution scores, the first one decides; None if none hold for the client's map.
    """
    from sealign.heads import softmax

    logits = task.layout.logits(outputs)
    probabilities = softmax(logits / task.temperature) if task.calibrated else None
    known = task.layout.scores(outputs)
    scores = {name: known[name] for name in task.ood_thresholds if name in known}
    decisive = next(iter(scores), None)
    results = []
    for row, winner in enumerate(logits.argmax(axis=1)):
        own = {name: float(values[row]) for name, values in scores.items()}
        of_labels = None
        if probabilities is not None:
            of_labels = dict(zip(task.labels, map(float, probabilities[row]), strict=True))
        within = None if thresholds is None else decisive is None or own[decisive] >= thresholds[decisive]
        results.append(
            Classification(
                label=task.labels[winner],
                index=int(winner),
                probability=None if probabilities is None else float(probabilities[row, winner]),
                probabilities=of_labels,
                labels=task.labels,
                logits=tuple(map(float, logits[row])),
                ood_scores=own,
                in_distribution=within,
            )
        )
    return results
