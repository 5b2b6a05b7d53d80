"""What a client's rows hold beside final hidden states."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sealign.encoders import EncoderSettings
from sealign.encoders.causal import CausalModel
from sealign.encoders.forecasting import Forecast
from sealign.errors import InvalidInputError
from tests.support import small_lms

VOCABULARY, HIDDEN = 9000, 10


def settings(**given: str) -> EncoderSettings:
    return EncoderSettings.parse(
        f"{small_lms.small_lm('one')}?device=cpu&threads=1" + "".join(f"&{key}={value}" for key, value in given.items())
    )


@pytest.mark.parametrize(
    ("precise", "rows_given", "tolerance"), [(True, 1100, 1e-3), (False, 3, 1e-3), (False, 1100, 0.05)]
)
def test_expected_embedding_and_entropy_are_those_of_the_models_distribution(
    precise: bool, rows_given: int, tolerance: float
) -> None:
    random = np.random.default_rng(0)
    weight = (random.standard_normal((VOCABULARY, HIDDEN)) + 0.5).astype(np.float32)
    bias = random.standard_normal(VOCABULARY).astype(np.float32)
    states = random.standard_normal((rows_given, HIDDEN)).astype(np.float32)
    forecast = Forecast(torch.tensor(weight), torch.tensor(bias), 7.0, precise=precise)
    rows = forecast(states)
    assert rows.shape == (rows_given, HIDDEN + forecast.width) == (rows_given, 2 * HIDDEN + 1)
    np.testing.assert_array_equal(rows[:, :HIDDEN], states)
    logits = states.astype(np.float64) @ weight.T + bias
    mass = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -(mass * np.log(mass)).sum(axis=1)
    np.testing.assert_allclose(rows[:, -1], 7.0 * 0.2 * entropy, rtol=tolerance, atol=7.0 * 0.2 * tolerance)
    centred = weight - weight.mean(axis=0, dtype=np.float64)
    scale = 7.0 / np.sqrt(np.square(centred).sum(axis=1).mean())
    wanted = scale * mass @ centred
    off = np.linalg.norm(rows[:, HIDDEN:-1] - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert off.max() < tolerance


def test_kinds_are_encoders_of_their_own() -> None:
    last, forecast = CausalModel(settings(states="last")), CausalModel(settings(states="forecast"))
    assert CausalModel(settings()).card == last.card
    assert last.card.fingerprint != forecast.card.fingerprint
    assert last.card.dimension == last.hidden == forecast.hidden
    assert forecast.card.dimension == 2 * last.hidden + 1
    (read,) = forecast.states(small_lms.test_texts(1))
    rows = forecast.sent(read.states)
    assert rows.shape == (len(read.tokens), forecast.card.dimension)
    np.testing.assert_array_equal(last.sent(read.states), read.states)
    # One row alone is that row among others.
    alone = forecast.sent(read.states[5:6])[0]
    assert np.linalg.norm(alone - rows[5]) < 0.02 * np.linalg.norm(rows[5])
    assert forecast.sent(read.states[:0]).shape == (0, forecast.card.dimension)


def test_the_appended_columns_are_of_the_size_of_a_state() -> None:
    model = CausalModel(settings(states="forecast"))
    (read,) = model.states(small_lms.test_texts(1))
    rows = model.sent(read.states)
    hidden, appended = (np.linalg.norm(part, axis=1).mean() for part in np.split(rows, [model.hidden], axis=1))
    assert 0.05 * hidden < appended < 2 * hidden


def test_an_unknown_kind() -> None:
    with pytest.raises(InvalidInputError, match="states"):
        settings(states="first")
