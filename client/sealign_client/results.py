"""What a classification tells the application."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealign.heads import softmax
from sealign.protocol import TaskCard


@dataclass(frozen=True)
class Classification:
    """The silo's classifier's view of one text.

    Attributes:
        label: the label with the largest logit.
        probability: its calibrated probability.
        logits: in the order of the task's labels, exact to the plan's precision.
        ood_scores: by name, larger for in-distribution texts.
        in_distribution: whether the score that is decided by, the first one, reaches its threshold: the silo's, or
            the client's own (`adapt`).
    """

    label: str
    probability: float
    logits: tuple[float, ...]
    ood_scores: dict[str, float]
    in_distribution: bool


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


def classifications(task: TaskCard, outputs: NDArray[np.float64]) -> list[Classification]:
    """Read outputs, shape (n, outputs), as classifications."""
    logits = task.layout.logits(outputs)
    probabilities = softmax(logits / task.temperature)
    known = task.layout.scores(outputs)
    scores = {name: known[name] for name in task.ood_thresholds if name in known}
    decisive = next(iter(scores), None)
    results = []
    for row, winner in enumerate(logits.argmax(axis=1)):
        own = {name: float(values[row]) for name, values in scores.items()}
        results.append(
            Classification(
                label=task.labels[winner],
                probability=float(probabilities[row, winner]),
                logits=tuple(map(float, logits[row])),
                ood_scores=own,
                in_distribution=decisive is None or own[decisive] >= task.ood_thresholds[decisive],
            )
        )
    return results
