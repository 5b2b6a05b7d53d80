"""How much a generated text repeats itself, by its tokens."""

from __future__ import annotations

from collections.abc import Sequence

_TIMES, _TOKENS = 3, 6
"""A loop is a run of tokens written so many times in a row, so many tokens in all at least."""


def distinct(tokens: Sequence[int], n: int = 4) -> float:
    """Return the share of runs of n tokens that are distinct: 1 where nothing is said twice.

    Source: Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models" (arXiv 1510.03055,
    distinct-n). A text of fewer than n tokens has one run.
    """
    runs = [tuple(tokens[start : start + n]) for start in range(max(1, len(tokens) - n + 1))]
    return len(set(runs)) / len(runs)


def has_loop(tokens: Sequence[int]) -> bool:
    """Return whether some run of tokens is written three times in a row or more, over six tokens at least."""
    for period in range(1, len(tokens) // _TIMES + 1):
        wanted = max(_TIMES * period, _TOKENS) - period
        same = 0
        for at in range(period, len(tokens)):
            same = same + 1 if tokens[at] == tokens[at - period] else 0
            if same >= wanted:
                return True
    return False
