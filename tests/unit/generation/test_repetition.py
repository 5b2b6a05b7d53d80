from __future__ import annotations

import pytest

from sealign.generation.repetition import distinct, has_loop


def test_distinct_counts_runs() -> None:
    assert distinct([1, 2, 3, 4, 5, 6]) == 1
    assert distinct([1, 2, 1, 2, 1, 2], 2) == pytest.approx(2 / 5)
    assert distinct([7] * 10, 1) == pytest.approx(1 / 10)
    assert distinct([1, 2], 4) == 1


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        ([1, 2, 3, 1, 2, 3, 1, 2, 3], True),
        ([9, 8, 1, 2, 3, 1, 2, 3, 1, 2, 3, 7], True),
        ([1, 2, 3, 1, 2, 3, 1, 2, 4], False),
        ([5, 5, 5, 5, 5], False),
        ([5, 5, 5, 5, 5, 5], True),
        ([1, 2, 1, 2, 1, 3], False),
        (list(range(40)) * 2, False),
        (list(range(30)) * 3, True),
        ([], False),
    ],
)
def test_a_loop_is_three_times_the_same_in_a_row(tokens: list[int], loop: bool) -> None:
    assert has_loop(tokens) is loop
