"""What a client's rows hold beside final hidden states."""

from __future__ import annotations

import numpy as np
import pytest

from sealign.encoders import EncoderSettings
from sealign.encoders.causal import CausalModel
from sealign.encoders.forecasting import Forecast
from sealign.errors import InvalidInputError
from tests.support import small_lms

VOCABULARY, HIDDEN = 40, 10


def settings(**given: str) -> EncoderSettings:
    return EncoderSettings.parse(
        f"{small_lms.small_lm('one')}?device=cpu&threads=1" + "".join(f"&{key}={value}" for key, value in given.items())
    )


def test_expected_embedding_and_entropy_are_those_of_the_models_distribution() -> None:
    random = np.random.default_rng(0)
    weight = (random.standard_normal((VOCABULARY, HIDDEN)) + 0.5).astype(np.float32)
    bias = random.standard_normal(VOCABULARY).astype(np.float32)
    states = random.standard_normal((130, HIDDEN)).astype(np.float32)
    forecast = Forecast(weight, bias, 7.0)
    rows = forecast(states)
    assert rows.shape == (130, HIDDEN + forecast.width) == (130, 2 * HIDDEN + 1)
    np.testing.assert_array_equal(rows[:, :HIDDEN], states)
    logits = states.astype(np.float64) @ weight.T + bias
    mass = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -(mass * np.log(mass)).sum(axis=1)
    np.testing.assert_allclose(rows[:, -1], 7.0 * 0.2 * entropy, rtol=1e-3, atol=1e-5)
    centred = weight - weight.mean(axis=0, dtype=np.float64)
    scale = 7.0 / np.sqrt(np.square(centred).sum(axis=1).mean())
    np.testing.assert_allclose(rows[:, HIDDEN:-1], scale * mass @ centred, rtol=1e-3, atol=1e-4)


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
    np.testing.assert_allclose(forecast.sent(read.states[5:6])[0], rows[5], rtol=1e-4, atol=1e-3)
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
