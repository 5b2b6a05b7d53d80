from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealign.generation import match_positions

ENDS = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(lambda ends: np.array(sorted(ends), dtype=np.int64))


@given(ENDS, ENDS)
def test_each_partner_is_the_first_that_has_read_as_much(client: NDArray[np.int64], silo: NDArray[np.int64]) -> None:
    match = match_positions(client, silo)
    partners = dict(zip(match.silo.tolist(), match.client.tolist(), strict=True))
    for position, end in enumerate(silo):
        read_whole = position + 1 == len(silo) or silo[position + 1] != end
        covering = [int(other) for other in client if other >= end]
        assert (position in partners) == (read_whole and bool(covering))
        if position in partners:
            partner = partners[position]
            assert client[partner] == min(covering)
            assert partner + 1 == len(client) or client[partner + 1] > client[partner]
    np.testing.assert_array_equal(match.exact, client[match.client] == silo[match.silo])


@given(ENDS)
def test_a_tokenizer_matches_itself(ends: NDArray[np.int64]) -> None:
    match = match_positions(ends, ends)
    np.testing.assert_array_equal(match.client, match.silo)
    assert match.exact.all()
    assert ends[match.silo].tolist() == sorted(set(ends.tolist()))


@given(ENDS, ENDS)
def test_order_stays(client: NDArray[np.int64], silo: NDArray[np.int64]) -> None:
    match = match_positions(client, silo)
    assert (np.diff(match.silo) > 0).all()
    assert (np.diff(match.client) >= 0).all()
    assert len(match.only(match.exact)) == match.exact.sum()


def test_nothing_matches_nothing() -> None:
    none = np.empty(0, dtype=np.int64)
    assert len(match_positions(none, np.array([1, 2]))) == len(match_positions(np.array([1]), none)) == 0
