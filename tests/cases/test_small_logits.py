"""A head with small logits drowns in the noise of an encrypted reply.

After Huelse/SEAL-Python issue 48 and OpenMined/TenSEAL issue 315: constants that are small, and calls that are close,
are lost in CKKS noise. The promised error of a logit is absolute, 1/64 by default, so a good head times 1e-3, or one
that was regularised until its logits were nearly equal, once gave the same label twice for half of the texts.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from sealign.heads import LinearHead, calibrate, label_agreement

Matrix = NDArray[np.float64]

PRECISION = 1 / 256


def texts(count: int, seed: int) -> tuple[Matrix, list[str]]:
    """Embeddings of norm 1 in 32 dimensions, of four classes that overlap."""
    random = np.random.default_rng(seed)
    targets = random.integers(4, size=count)
    rows = 1.5 * np.eye(32)[targets] + 0.5 * random.normal(size=(count, 32))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), [f"class {target}" for target in targets]


def regularised(strength: float) -> LinearHead:
    fitted = LogisticRegression(C=strength, max_iter=5000).fit(*texts(800, 1))
    return LinearHead(fitted.coef_.T, fitted.intercept_, tuple(fitted.classes_))


HEADS = {
    "as it is": regularised(10.0),
    "times 1e-3": regularised(10.0).scaled(1e-3),
    "times 1e-4": regularised(10.0).scaled(1e-4),
    "C = 1e-3": regularised(1e-3),
    "C = 1e-4": regularised(1e-4),
}


def noisy(logits: Matrix, seed: int) -> Matrix:
    """As an encrypted reply within the promise: its error has standard deviation precision/7."""
    result: Matrix = logits + np.random.default_rng(seed).normal(scale=PRECISION / 7, size=logits.shape)
    return result


def same_twice(head: LinearHead, rows: Matrix) -> float:
    one, other = (noisy(head.logits(rows), seed).argmax(axis=1) for seed in (1, 2))
    return float(np.mean(one == other))


@pytest.mark.parametrize("name", HEADS)
def test_a_calibrated_head_gives_the_same_label_twice(name: str) -> None:
    rows, labels = texts(400, 2)
    served = calibrate(HEADS[name], rows, labels)
    fresh, _ = texts(1000, 3)
    assert same_twice(served.head, fresh) > 0.99
    assert label_agreement(served.head.logits(fresh), min(PRECISION, served.precision)) > 0.98
    np.testing.assert_array_equal(served.head.logits(fresh).argmax(1), HEADS[name].logits(fresh).argmax(1))


@pytest.mark.parametrize("name", ["times 1e-3", "times 1e-4"])
def test_the_head_that_was_given_does_not(name: str) -> None:
    assert same_twice(HEADS[name], texts(1000, 3)[0]) < 0.97


def test_scales_of_one_head_are_served_alike() -> None:
    rows, labels = texts(400, 2)
    one, other = (calibrate(HEADS[name], rows, labels) for name in ("as it is", "times 1e-4"))
    np.testing.assert_allclose(one.head.weight, other.head.weight, rtol=1e-6)
    assert one.precision == other.precision
