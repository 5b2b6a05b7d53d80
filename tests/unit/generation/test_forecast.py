from __future__ import annotations

import pytest

from sealign.ckks import ProductShape, candidates
from sealign.encoders.causal import CausalModel
from sealign.errors import InvalidInputError
from sealign.generation import compare_tokenizers, token_cost
from tests.support import small_lms

TEXTS = small_lms.public_texts(5)


def test_a_tokenizer_is_like_itself(one: CausalModel) -> None:
    found = compare_tokenizers(one.tokenizer, one.tokenizer, TEXTS)
    assert (found.jaccard, found.exact_match, found.boundary_match) == (1, 1, 1)
    assert found.tokens == sum(len(one.tokenizer.encode(text)) for text in TEXTS)


def test_tokenizers_of_different_kinds(one: CausalModel, three: CausalModel) -> None:
    found, swapped = (
        compare_tokenizers(client, silo, TEXTS)
        for client, silo in ((one.tokenizer, three.tokenizer), (three.tokenizer, one.tokenizer))
    )
    mine, theirs = set(one.tokenizer.pieces) - {""}, set(three.tokenizer.pieces) - {""}
    assert found.jaccard == swapped.jaccard == len(mine & theirs) / len(mine | theirs)
    spans = [
        {
            (number, start, end)
            for number, text in enumerate(TEXTS)
            for start, end in model.tokenizer.encode(text).offsets.tolist()
        }
        for model in (one, three)
    ]
    shared = len(spans[0] & spans[1])
    assert found.exact_match == shared / len(spans[1])
    assert swapped.exact_match == shared / len(spans[0])
    assert 0 < found.exact_match < found.boundary_match < 1


def test_cost_is_that_of_one_row() -> None:
    plan = candidates(ProductShape(1, 256, 4096, 500.0, 64.0, precision=1 / 8))[0]
    cost = token_cost(plan)
    assert (cost.sent, cost.received) == (plan.cost.request_bytes, plan.cost.reply_bytes)
    assert cost.seconds == pytest.approx(plan.cost.milliseconds / 1000)
    assert cost.parameters == plan.parameters.name


def test_no_texts(one: CausalModel) -> None:
    with pytest.raises(InvalidInputError, match="give some public ones"):
        compare_tokenizers(one.tokenizer, one.tokenizer, [])
