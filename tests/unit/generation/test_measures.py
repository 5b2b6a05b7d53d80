from __future__ import annotations

import numpy as np
import pytest

from sealign.encoders.causal import CausalModel, OutputHead
from sealign.errors import InvalidInputError
from sealign.generation import measure_agreement, models_agreement
from tests.support import small_lms

HEAD = OutputHead(np.eye(8, dtype=np.float32), None)


def test_against_a_count_by_hand() -> None:
    """The head is the identity, so states are logits."""
    own = np.array([[9, 8, 7, 6, 5, 4, 3, 2]] * 3, dtype=np.float32)
    mapped = np.array([[9, 8, 7, 6, 5, 4, 3, 2], [5, 9, 8, 7, 6, 4, 3, 2], [4, 9, 8, 7, 6, 5, 3, 2]], dtype=np.float64)
    measured = measure_agreement(HEAD, mapped, own, np.array([1, 1, -1]))
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (own.astype(np.float64), mapped))
    assert (measured.positions, measured.top1, measured.top5) == (2, 0.5, 1.0)
    assert measured.own_perplexity == pytest.approx(1 / p[0, 1])
    assert measured.perplexity == pytest.approx(1 / np.sqrt(q[0, 1] * q[1, 1]))
    assert measured.divergence == pytest.approx((p * np.log(p / q))[:2].sum() / 2)
    sixth = measure_agreement(HEAD, mapped, own, np.array([-1, -1, 1]))
    assert (sixth.top1, sixth.top5) == (0, 0)


def test_the_same_states_lose_nothing(two: CausalModel) -> None:
    (read,) = two.states(small_lms.test_texts(1))
    following = np.append(read.tokens.ids[1:], -1)
    measured = measure_agreement(two.head, read.states.astype(np.float64), read.states, following)
    assert (measured.top1, measured.top5) == (1, 1)
    assert measured.perplexity_ratio == pytest.approx(1)
    assert measured.divergence == pytest.approx(0, abs=1e-6)


def test_models_agree_on_what_they_would_write(one: CausalModel, three: CausalModel) -> None:
    (text,) = small_lms.test_texts(1)
    (a,), (b,) = one.states([text]), three.states([text])
    mine = (one.head, one.tokenizer, a.states)
    assert models_agreement(mine, mine) == 1
    theirs = (three.head, three.tokenizer, b.states[:1].repeat(len(a.states), axis=0))
    constant = three.tokenizer.pieces[int(three.head.logits(b.states[:1]).argmax())]
    texts = [one.tokenizer.pieces[token] for token in one.head.logits(a.states).argmax(axis=1)]
    assert models_agreement(mine, theirs) == np.mean([text == constant for text in texts])


def test_refusals(one: CausalModel) -> None:
    none = np.empty((0, 8), dtype=np.float32)
    with pytest.raises(InvalidInputError, match="follows"):
        measure_agreement(HEAD, none.astype(np.float64), none, np.empty(0, dtype=np.int64))
    with pytest.raises(InvalidInputError, match="differ"):
        measure_agreement(HEAD, np.zeros((2, 8)), none, np.zeros(2, dtype=np.int64))
    with pytest.raises(InvalidInputError, match="cannot be compared"):
        models_agreement((HEAD, one.tokenizer, none), (HEAD, one.tokenizer, none))
