"""A model's distribution as another's tokens, with the small models and with tokenizers written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sealign.encoders.causal import CausalModel
from sealign.errors import InvalidInputError
from sealign.generation import Rewriting, measure_predictions, predictor, token_counts
from sealign.generation.rewriting import FLOOR
from sealign.generation.states import client_rows, silo_rows
from tests.support import small_lms
from tests.support.tokenizers import tokenizer_of

CLIENT = ("<end>", "a", "ab", "abc", "x")
SILO = ("a", "b", "abc", "abcd", "<end>", "xy", "xz")


def rewritten(*mass: float, texts: tuple[str, ...] = ()) -> dict[str, float]:
    """What each of the silo's tokens gets of a client's distribution over its own, without the floor."""
    silo = tokenizer_of(SILO)
    rewriting = Rewriting(tokenizer_of(CLIENT), silo, token_counts(silo, len(SILO), texts))
    with np.errstate(divide="ignore"):
        (found,) = np.exp(rewriting.log_probabilities(np.log(np.array([mass]))))
    assert found.sum() == pytest.approx(1)
    silent = np.exp(rewriting.log_probabilities(np.log(np.array([[1.0, 1e-300, 1e-300, 1e-300, 1e-300]]))))[0]
    silent[SILO.index("<end>")] -= 1 - FLOOR
    return dict(zip(SILO, np.round((found - silent) / (1 - FLOOR), 9).tolist(), strict=True))


def test_a_token_that_both_have_keeps_its_probability() -> None:
    found = rewritten(0.0, 1.0, 0.0, 0.0, 0.0)
    assert found["a"] == 1


def test_a_longer_token_goes_to_the_silos_longest_beginning_of_it() -> None:
    assert rewritten(0.0, 0.0, 1.0, 0.0, 0.0)["a"] == 1


def test_a_beginning_is_shared_by_frequency_among_the_tokens_that_it_begins() -> None:
    assert rewritten(0.0, 0.0, 0.0, 1.0, 0.0) == pytest.approx({**dict.fromkeys(SILO, 0), "abc": 0.5, "abcd": 0.5})
    counted = rewritten(0.0, 0.0, 0.0, 0.0, 1.0, texts=("xyxyxz",))
    assert counted["xy"] == pytest.approx(2.1 / 3.2)
    assert counted["xz"] == pytest.approx(1.1 / 3.2)


def test_an_end_is_an_end() -> None:
    assert rewritten(1.0, 0.0, 0.0, 0.0, 0.0)["<end>"] == 1


def test_probabilities_add_up_over_a_whole_distribution() -> None:
    found = rewritten(0.1, 0.2, 0.3, 0.4, 0.0)
    assert found == pytest.approx({"a": 0.5, "b": 0, "abc": 0.2, "abcd": 0.2, "<end>": 0.1, "xy": 0, "xz": 0})


def test_a_model_rewritten_as_its_own_tokens_is_itself_but_for_the_floor(two: CausalModel) -> None:
    (read,) = two.states(small_lms.test_texts(1))
    logits = two.head.logits(read.states)
    own = predictor(two.head, read.states)(np.arange(len(logits)))
    allowed = two.tokenizer.allowed(two.card.vocabulary)
    counts = token_counts(two.tokenizer, two.card.vocabulary, small_lms.public_texts(20))
    rewriting = Rewriting(two.tokenizer, two.tokenizer, counts)
    found = np.exp(rewriting.log_probabilities(logits))
    assert np.abs(found - np.exp(own))[:, allowed].max() <= 2 * FLOOR


@pytest.mark.parametrize("name", ["one", "three"])
def test_a_small_model_predicts_real_text_in_anothers_tokens(
    name: str, two: CausalModel, request: pytest.FixtureRequest
) -> None:
    client: CausalModel = request.getfixturevalue(name)
    texts = small_lms.test_texts(12)
    theirs = list(silo_rows(two, texts))
    y, following = (np.concatenate([getattr(r, key) for r in theirs]) for key in ("states", "following"))
    x = np.concatenate(list(client_rows(client, two.tokenizer, texts)))
    counts = token_counts(two.tokenizer, two.card.vocabulary, small_lms.public_texts(50))
    rewriting = Rewriting(client.tokenizer, two.tokenizer, counts)
    found = measure_predictions(
        predictor(two.head, y), lambda rows: rewriting.log_probabilities(client.head.logits(x[rows])), y, following
    )
    shuffled = measure_predictions(
        predictor(two.head, y),
        lambda rows: rewriting.log_probabilities(client.head.logits(np.roll(x, 7, axis=0)[rows])),
        y,
        following,
    )
    assert found.perplexity < 2 * found.own_perplexity
    assert found.perplexity < 0.5 * shuffled.perplexity


def test_a_distribution_over_nothing_that_writes_is_the_silos_frequencies() -> None:
    unwritten = tokenizer_of(("<end>", "a", "q"))
    silo = tokenizer_of(SILO)
    rewriting = Rewriting(unwritten, silo, token_counts(silo, len(SILO), ("xyxyxz",)))
    (found,) = np.exp(rewriting.log_probabilities(np.array([[-np.inf, -np.inf, 0.0]])))
    assert found.argmax() == SILO.index("xy")
    assert found.sum() == pytest.approx(1)


def test_refusals() -> None:
    with pytest.raises(InvalidInputError, match="belong to different models"):
        Rewriting(tokenizer_of(CLIENT), tokenizer_of(SILO), np.zeros(len(SILO) - 1, np.uint32))
    with pytest.raises(InvalidInputError, match="belong to different models"):
        token_counts(tokenizer_of(SILO), len(SILO) - 1, ["abc"])
    rewriting = Rewriting(tokenizer_of(CLIENT), tokenizer_of(SILO), np.zeros(len(SILO), np.uint32))
    with pytest.raises(InvalidInputError, match="not those of the tokenizer's model"):
        rewriting.log_probabilities(np.zeros((1, len(CLIENT) - 1)))
