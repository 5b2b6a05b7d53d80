"""From logits to what an application is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sealign.heads import SCORES, softmax
from sealign.protocol import TaskCard
from sealign_client.results import Classification, classifications


def card(**thresholds: float) -> TaskCard:
    return TaskCard("t", "", ("a", "b", "c"), 2.0, 0.9, thresholds, (), "", calibrated=True)


def read(task: TaskCard, logits: np.ndarray[Any, Any]) -> list[Classification]:
    return classifications(task, logits, task.ood_thresholds)


def test_label_probability_and_scores() -> None:
    logits = np.array([[1.0, 3.0, 0.0], [0.5, 0.25, 0.125]])
    first, second = read(card(energy=1.0, max_logit=0.0, max_softmax=0.0), logits)
    assert (first.label, second.label) == ("b", "a")
    assert first.logits == (1.0, 3.0, 0.0)
    assert (first.index, second.index) == (1, 0)
    assert first.labels == ("a", "b", "c")
    assert first.probabilities is not None
    assert sum(first.probabilities.values()) == pytest.approx(1)
    assert first.probability == first.probabilities["b"]
    assert first.probability == pytest.approx(softmax(logits / 2.0)[0, 1])
    assert first.ood_scores == pytest.approx({name: score(logits)[0] for name, score in SCORES.items()})


def test_the_energy_threshold_decides_what_is_in_distribution() -> None:
    logits = np.array([[4.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
    assert [r.in_distribution for r in read(card(energy=2.0), logits)] == [True, False]
    assert [r.in_distribution for r in read(card(), logits)] == [True, True]
    assert read(card(unheard_of=1.0), logits)[0].ood_scores == {}


def test_a_result_is_plain_json() -> None:
    (result,) = read(card(energy=0.0), np.array([[1.0, 2.0, 3.0]]))
    assert json.loads(json.dumps(vars(result)))["label"] == "c"


def test_no_rows() -> None:
    assert read(card(energy=0.0), np.zeros((0, 3))) == []


def test_what_is_not_calibrated_is_not_told() -> None:
    """Thresholds of the client's own texts hold without the silo's calibration."""
    uncalibrated = replace(card(energy=2.0), calibrated=False)
    logits = np.array([[4.0, 0.0, 0.0]])
    (result,) = classifications(uncalibrated, logits, None)
    assert (result.label, result.probability, result.probabilities, result.in_distribution) == ("a", None, None, None)
    (result,) = classifications(uncalibrated, logits, {"energy": 5.0})
    assert (result.probability, result.in_distribution) == (None, False)
