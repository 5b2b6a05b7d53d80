from __future__ import annotations

import numpy as np
import pytest

from sealign.errors import InvalidInputError
from sealign.heads import LinearHead


def head(dimension: int = 4, classes: int = 3) -> LinearHead:
    random = np.random.default_rng(0)
    return LinearHead(
        random.normal(size=(dimension, classes)),
        random.normal(size=classes),
        tuple("abcdef"[:classes]),
    )


def test_logits_are_rows_times_weight_plus_bias() -> None:
    result = head()
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    expected = [[row @ result.weight[:, k] + result.bias[k] for k in range(3)] for row in x]
    np.testing.assert_allclose(result.logits(x), expected)


def test_composed_equals_map_then_head() -> None:
    random = np.random.default_rng(2)
    x, weight, intercept = (random.normal(size=s) for s in [(7, 6), (6, 4), (4,)])
    composed = head().composed(weight, intercept)
    assert (composed.dimension, composed.labels) == (6, ("a", "b", "c"))
    np.testing.assert_allclose(composed.logits(x), head().logits(x @ weight + intercept))


@pytest.mark.parametrize(
    ("weight", "intercept"),
    [(np.zeros((6, 3)), np.zeros(4)), (np.zeros((6, 4)), np.zeros(6)), (np.zeros(4), np.zeros(4))],
)
def test_a_map_into_another_space_is_refused(weight: np.ndarray, intercept: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="does not lead into"):
        head().composed(weight, intercept)


@pytest.mark.parametrize(
    ("weight", "bias", "labels", "message"),
    [
        (np.zeros((4, 2)), np.zeros(2), ("a",), "at least two classes"),
        (np.zeros((4, 2)), np.zeros(2), ("a", "b", "c"), "3 labels do not name 2 outputs"),
        (np.zeros((4, 3)), np.zeros(3), ("a", "b", "a"), r"repeated: \['a'\]"),
        (np.zeros((4, 2)), np.zeros(2), ("a", ""), "non-empty strings"),
        (np.zeros((4, 2)), np.zeros(2), ("a", 1), "non-empty strings"),
        (np.zeros((4, 2)), np.zeros(4), ("a", "b"), "a head needs a weight"),
        (np.zeros(4), np.zeros(4), ("a", "b"), "a head needs a weight"),
        (np.zeros((0, 2)), np.zeros(2), ("a", "b"), "a head needs a weight"),
        (np.full((4, 2), np.nan), np.zeros(2), ("a", "b"), "not finite"),
        (np.zeros((4, 2)), np.full(2, -np.inf), ("a", "b"), "not finite"),
    ],
)
def test_bad_heads(weight: np.ndarray, bias: np.ndarray, labels: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        LinearHead(weight, bias, labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(4), "shape"),
        (np.zeros((2, 5)), r"the head takes \(rows, 4\)"),
        (np.zeros((0, 4)), "shape"),
        (np.array([[0.0] * 4, [0, np.nan, 0, 0]]), "1 embeddings are not finite, the first is row 1"),
        ([["x"] * 4], "not an array of real numbers"),
    ],
)
def test_bad_embeddings(x: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        head().logits(x)  # type: ignore[arg-type]
