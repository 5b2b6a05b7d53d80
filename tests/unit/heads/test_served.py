from __future__ import annotations

import numpy as np
import pytest

from sealign.errors import InvalidInputError
from sealign.heads import LinearHead, OutputLayout, ServedHead

RANDOM = np.random.default_rng(0)
HEAD = LinearHead(RANDOM.normal(size=(4, 3)), RANDOM.normal(size=3), ("a", "b", "c"))
SERVED = ServedHead(HEAD, True, RANDOM.normal(size=(4, 2)), RANDOM.normal(size=2))
ROWS = RANDOM.normal(size=(10, 4))


def test_outputs_are_logits_and_coordinates() -> None:
    outputs = SERVED.outputs(ROWS)
    np.testing.assert_allclose(outputs, ROWS @ SERVED.weight + SERVED.bias)
    assert SERVED.layout == OutputLayout(3, True, 2)
    assert SERVED.layout.outputs == 5
    np.testing.assert_array_equal(SERVED.layout.logits(outputs), HEAD.logits(ROWS))
    scores = SERVED.layout.scores(outputs)
    np.testing.assert_array_equal(scores["reject_margin"], HEAD.logits(ROWS).max(axis=1))
    np.testing.assert_allclose(scores["mahalanobis"], -np.sum(outputs[:, 3:] ** 2, axis=1))


def test_composed_takes_source_rows() -> None:
    M, m = RANDOM.normal(size=(7, 4)), RANDOM.normal(size=4)
    source = RANDOM.normal(size=(6, 7))
    composed = SERVED.composed(M, m)
    np.testing.assert_allclose(composed.outputs(source), SERVED.outputs(source @ M + m))
    assert composed.layout == SERVED.layout


def test_cooled_leaves_the_directions() -> None:
    cooled = SERVED.cooled(2.0).outputs(ROWS)
    outputs = SERVED.outputs(ROWS)
    np.testing.assert_allclose(cooled[:, :3], outputs[:, :3] / 2)
    np.testing.assert_array_equal(cooled[:, 3:], outputs[:, 3:])


def test_a_head_alone() -> None:
    alone = ServedHead(HEAD)
    np.testing.assert_array_equal(alone.outputs(ROWS), HEAD.logits(ROWS))
    assert list(alone.layout.scores(alone.outputs(ROWS))) == ["energy", "max_softmax", "max_logit"]


def test_refusals() -> None:
    for directions, offsets in ((np.zeros((3, 2)), np.zeros(2)), (np.zeros((4, 2)), np.zeros(3)), (None, np.zeros(1))):
        with pytest.raises(InvalidInputError, match="do not fit a head"):
            ServedHead(HEAD, False, directions, offsets)
    with pytest.raises(InvalidInputError, match="not finite"):
        ServedHead(HEAD, False, np.full((4, 1), np.nan), np.zeros(1))
    with pytest.raises(InvalidInputError, match="at least 2 classes"):
        OutputLayout(1)
    with pytest.raises(InvalidInputError, match="expected"):
        OutputLayout(3, directions=1).logits(np.zeros((2, 3)))
