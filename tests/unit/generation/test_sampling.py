from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealign.errors import InvalidInputError
from sealign.generation import Sampler, Sampling, StopStrings

LOGITS = np.log([0.5, 0.3, 0.15, 0.04, 0.01]) + 3.0
ALL = np.ones(5, dtype=np.bool_)


def freely(**given: float) -> Sampling:
    """Sampling that may repeat itself, as five tokens must."""
    return Sampling.model_validate({"no_repeat_run": 0, **given})


def draws(sampling: Sampling, count: int = 4000, logits: np.ndarray = LOGITS) -> Counter[int]:
    sampler = Sampler(sampling, ALL)
    return Counter(sampler.choose(logits).id for _ in range(count))


def test_greedy_takes_the_likeliest_and_the_first_of_equals() -> None:
    assert draws(freely(), 3) == {0: 3}
    assert draws(freely(), 3, np.array([1.0, 2.0, 2.0, 0.0, 0.0])) == {1: 3}


def test_temperature_one_draws_by_the_softmax() -> None:
    shares = draws(freely(temperature=1.0), 20_000)
    for token, share in enumerate([0.5, 0.3, 0.15, 0.04, 0.01]):
        assert shares[token] / 20_000 == pytest.approx(share, abs=0.015)


def test_a_temperature_sharpens_or_flattens() -> None:
    assert draws(freely(temperature=0.5))[0] / 4000 == pytest.approx(0.25 / 0.3642, abs=0.03)
    assert draws(freely(temperature=100.0))[4] / 4000 == pytest.approx(0.2, abs=0.03)


def test_top_k_and_top_p() -> None:
    assert set(draws(freely(temperature=1.0, top_k=2))) == {0, 1}
    assert set(draws(freely(temperature=1.0, top_k=99))) == {0, 1, 2, 3, 4}
    assert set(draws(freely(temperature=1.0, top_p=0.6))) == {0, 1}
    assert set(draws(freely(temperature=1.0, top_p=0.49))) == {0}
    assert set(draws(freely(temperature=1.0, top_k=3, top_p=0.6))) == {0, 1}


def test_what_is_not_allowed_is_never_chosen() -> None:
    allowed = np.array([False, True, False, True, False])
    greedy = Sampler(freely(), allowed, alternatives=5).choose(LOGITS)
    assert greedy.id == 1
    assert [token for token, _ in greedy.alternatives] == [1, 3]
    assert greedy.log_probability == pytest.approx(np.log(0.3 / 0.34))
    random = Sampler(freely(temperature=100.0, top_k=5), allowed)
    assert {random.choose(LOGITS).id for _ in range(200)} == {1, 3}


def test_a_seed_decides() -> None:
    first, again, other = (
        [s.choose(LOGITS).id for _ in range(50)]
        for s in (Sampler(freely(temperature=1.0, seed=seed), ALL) for seed in (1, 1, 2))
    )
    assert first == again != other


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = np.array([2.0, 1.5, -1.0, -1.2, -5.0])
    assert Sampler(freely(repetition_penalty=1.5), ALL, seen=[0, 99]).choose(logits).id == 1
    below = np.array([-1.0, -1.2, -9.0, -9.0, -9.0])
    assert Sampler(freely(repetition_penalty=1.5), ALL, seen=[0]).choose(below).id == 1
    sampler = Sampler(freely(repetition_penalty=10.0), ALL)
    assert [sampler.choose(logits).id for _ in range(2)] == [0, 1]  # what was chosen counts as seen


def test_log_probabilities_are_those_of_the_logits_as_they_came() -> None:
    choice = Sampler(freely(temperature=0.2, repetition_penalty=3.0), ALL, seen=[0], alternatives=2).choose(LOGITS)
    assert choice.log_probability == pytest.approx(np.log([0.5, 0.3, 0.15, 0.04, 0.01])[choice.id])
    assert [token for token, _ in choice.alternatives] == [0, 1]
    assert [value for _, value in choice.alternatives] == pytest.approx(np.log([0.5, 0.3]))


def test_no_run_of_four_tokens_is_written_twice() -> None:
    sampler = Sampler(Sampling(), ALL)
    written = [sampler.choose(LOGITS).id for _ in range(20)]
    runs = [tuple(written[at : at + 4]) for at in range(17)]
    assert len(set(runs)) == len(runs)
    assert written[:5] == [0, 0, 0, 0, 1]
    assert [Sampler(Sampling(), ALL, seen=[2, 0, 0, 1, 0, 2, 0, 0]).choose(LOGITS).id] == [0]
    assert [Sampler(Sampling(), ALL, seen=[2, 1, 3, 0, 2, 1, 3]).choose(LOGITS).id] == [1]  # the prompt counts


def test_where_every_token_would_repeat_a_run_all_may_come() -> None:
    two = np.array([True, True, False, False, False])
    sampler = Sampler(Sampling(no_repeat_run=1), two)
    assert [sampler.choose(LOGITS).id for _ in range(4)] == [0, 1, 0, 0]


@pytest.mark.parametrize("logits", [np.zeros(4), np.array([0.0, 0.0, np.nan, 0.0, 0.0]), np.zeros((1, 5))])
def test_logits_of_another_shape_or_not_finite(logits: np.ndarray) -> None:
    with pytest.raises(InvalidInputError):
        Sampler(freely(), ALL).choose(logits)


@given(st.text("ab", max_size=40), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.randoms())
def test_stop_strings_cut_where_the_whole_text_would_be_cut(text: str, stops: list[str], random: object) -> None:
    stopping, written, at = StopStrings(stops), "", 0
    while at < len(text) and not stopping.stopped:
        step = random.randint(1, 5)  # type: ignore[attr-defined]
        written += stopping.add(text[at : at + step])
        at += step
        assert not any(stop in written for stop in stops)
    written += stopping.rest()
    found = [text.index(stop) for stop in stops if stop in text]
    assert stopping.stopped == bool(found)
    # A longer stop may begin earlier than a shorter one that is complete first.
    seen = [text[:at].index(stop) for stop in stops if stop in text[:at]]
    assert written == text[: min(seen)] if seen else written == text


def test_stop_strings_hold_back_only_what_may_be_one() -> None:
    stopping = StopStrings(["END"])
    assert [stopping.add(piece) for piece in ("the E", "N", "x", " EN", "D of it", "more")] == [
        "the ", "", "ENx", " ", "", "",
    ]  # fmt: skip
    assert stopping.stopped
    assert StopStrings([]).add("all") == "all"
    with pytest.raises(InvalidInputError, match="empty"):
        StopStrings([""])
