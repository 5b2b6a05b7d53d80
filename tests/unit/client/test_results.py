"""From logits to what an application is told."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sealign.heads import SCORES, softmax
from sealign.protocol import TaskCard
from sealign_client.results import classifications


def card(**thresholds: float) -> TaskCard:
    return TaskCard("t", "", ("a", "b", "c"), 2.0, 0.9, thresholds, (), "")


def test_label_probability_and_scores() -> None:
    logits = np.array([[1.0, 3.0, 0.0], [0.5, 0.25, 0.125]])
    first, second = classifications(card(energy=1.0, max_logit=0.0, max_softmax=0.0), logits)
    assert (first.label, second.label) == ("b", "a")
    assert first.logits == (1.0, 3.0, 0.0)
    assert first.probability == pytest.approx(softmax(logits / 2.0)[0, 1])
    assert first.ood_scores == pytest.approx({name: score(logits)[0] for name, score in SCORES.items()})


def test_the_energy_threshold_decides_what_is_in_distribution() -> None:
    logits = np.array([[4.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
    assert [r.in_distribution for r in classifications(card(energy=2.0), logits)] == [True, False]
    assert [r.in_distribution for r in classifications(card(), logits)] == [True, True]
    assert classifications(card(unheard_of=1.0), logits)[0].ood_scores == {}


def test_a_result_is_plain_json() -> None:
    (result,) = classifications(card(energy=0.0), np.array([[1.0, 2.0, 3.0]]))
    assert json.loads(json.dumps(vars(result)))["label"] == "c"


def test_no_rows() -> None:
    assert classifications(card(energy=0.0), np.zeros((0, 3))) == []
