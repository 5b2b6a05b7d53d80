from __future__ import annotations

import re

import numpy as np
import pytest

from sealign.ckks import SecurityTable
from sealign.errors import NoPlanError
from sealign.generation.vocabulary import MappedVocabulary, VocabularyHead, plan_vocabulary

V, D, S = 500, 20, 16
PRECISION = 1 / 32


def mapped(scale: float = 1.0, seen: float | None = None) -> MappedVocabulary:
    """Norm-one rows; ``seen``: the largest logit of the states seen."""
    random = np.random.default_rng(0)
    weight = (scale * random.normal(size=(V, D))).astype(np.float32)
    head = VocabularyHead.of(weight, (0.1 * random.normal(size=V)).astype(np.float32))
    states = random.normal(size=(200, D))
    if seen is not None:
        states *= seen / np.abs(head.logits(states) - head.bias).max()
    return MappedVocabulary(head, random.normal(size=(S, D)), np.zeros(D), 1.0, None if seen is None else states)


def bound(of: MappedVocabulary) -> float:
    return float((np.linalg.norm(of.columns(slice(0, V)), axis=0) + np.abs(of.bias)).max())


def test_the_range_is_twice_what_was_seen() -> None:
    largest = bound(mapped())
    assert mapped().shape(PRECISION).range == largest
    for seen in (0.2 * largest, 0.4 * largest):
        reached = np.abs(mapped(seen=seen).head.logits(mapped(seen=seen).seen)).max()  # type: ignore[arg-type]
        assert mapped(seen=seen).shape(PRECISION).range == pytest.approx(2 * reached)


def test_the_range_is_at_least_a_seventh_of_the_bound_and_at_most_the_bound() -> None:
    largest = bound(mapped())
    assert largest / 7 < mapped(seen=1e-3).shape(PRECISION).range < 1.01 * largest / 7 + PRECISION
    assert mapped(seen=0.9 * largest).shape(PRECISION).range == largest


def test_rows_that_a_client_has_mapped_are_judged_by_the_silos_own() -> None:
    head = mapped().head
    rows = np.random.default_rng(1).normal(size=(3000, D)).astype(np.float32)
    over = MappedVocabulary.over(head, rows)
    sampled = 2 * np.abs(head.logits(rows)).max()
    shape = over.shape(PRECISION)
    assert over.row_norm >= np.linalg.norm(rows, axis=1).max()
    assert max(0.6 * sampled, bound(over) / 7) < shape.range < 1.01 * max(sampled, bound(over) / 7) + PRECISION


def test_a_head_that_is_too_large_for_the_precision() -> None:
    """The operator is told a precision that works."""
    large = mapped(scale=30, seen=100.0)
    with pytest.raises(NoPlanError, match="generation task poems must be served with logits of up to") as caught:
        plan_vocabulary("poems", large, PRECISION, SecurityTable.CLASSICAL)
    told = re.search(r"serve with --generation-precision (\S+)$", str(caught.value))
    assert told is not None
    plan = plan_vocabulary("poems", large, float(told[1]), SecurityTable.CLASSICAL)
    assert plan.precision == float(told[1]) > PRECISION


@pytest.mark.parametrize(("scale", "message"), [(0.0, "all zero"), (1e8, "use a model with a smaller head")])
def test_a_head_that_no_precision_serves(scale: float, message: str) -> None:
    with pytest.raises(NoPlanError, match=message):
        plan_vocabulary("poems", mapped(scale=scale), PRECISION, SecurityTable.CLASSICAL)
