from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from sealign.errors import InvalidInputError
from sealign.heads import (
    SCORES,
    LinearHead,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    softmax,
)


def drawn(rows: int, temperature: float) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Logits whose classes are drawn from their softmax at the temperature."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (rows, 4))
    cumulative = softmax(logits / temperature).cumsum(axis=1)
    return logits, (random.random((rows, 1)) > cumulative[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_recovered_and_minimises_the_likelihood(temperature: float) -> None:
    logits, targets = drawn(20_000, temperature)

    def loss(log_t: float) -> float:
        p = softmax(logits / np.exp(log_t))[np.arange(len(targets)), targets]
        return float(-np.log(p).mean())

    fitted = fit_temperature(logits, targets)
    assert fitted == pytest.approx(temperature, rel=0.05)
    oracle = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-6})
    assert fitted == pytest.approx(np.exp(oracle.x), rel=0.01)  # smoothing moves it a little


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1e6])
def test_temperature_goes_with_the_scale(scale: float) -> None:
    logits, targets = drawn(500, 1.0)
    assert fit_temperature(scale * logits, targets) == pytest.approx(scale * fit_temperature(logits, targets))


def test_temperature_stays_in_bounds() -> None:
    targets = np.zeros(3, np.intp)
    right, wrong = np.tile([1.0, 0.0], (3, 1)), np.tile([0.0, 1.0], (3, 1))
    assert 0.1 < fit_temperature(right, targets) < 10  # smoothed: not certain after three rows
    assert fit_temperature(wrong, targets) == pytest.approx(5000)  # 10,000 times the logits' root mean square
    assert fit_temperature(np.ones((3, 2)), targets) == 1.0


def test_calibration_error_of_known_bins() -> None:
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 6)
    targets = np.array([0, 0, 0, 1, 0, 0, 0, 1, 1, 1])
    # |0.75 − 0.9| for four rows and |0.5 − 0.6| for six.
    assert expected_calibration_error(probabilities, targets) == pytest.approx(0.12)
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0


def test_calibrate_an_unknown_head() -> None:
    logits, targets = drawn(4000, 3.0)
    names = ("w", "x", "y", "z")
    head = LinearHead(np.eye(4), np.zeros(4), names)
    result = calibrate(head, logits, [names[k] for k in targets])
    assert result.temperature == pytest.approx(3.0, abs=0.2)
    np.testing.assert_allclose(result.head.weight, np.eye(4) / result.temperature)
    assert result.penalty is None
    assert result.held_out_rows == 4000
    assert result.held_out_accuracy == pytest.approx(np.mean(logits.argmax(1) == targets), abs=0.02)
    assert result.calibration_error_after < 0.03 < result.calibration_error_before
    for name, score in SCORES.items():
        assert np.mean(score(result.head.logits(logits)) >= result.ood[name]) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.zeros((2, 2)), ["a"], "1 labels meet 2 embeddings"),
        (np.zeros((2, 2)), ["a", "c"], r"not classes of the head: \['c'\]"),
        (np.zeros((2, 3)), ["a", "b"], "the head takes"),
        (np.full((2, 2), np.inf), ["a", "b"], "not finite"),
    ],
)
def test_calibrate_refuses(x: NDArray[np.float64], labels: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        calibrate(LinearHead(np.eye(2), np.zeros(2), ("a", "b")), x, labels)
