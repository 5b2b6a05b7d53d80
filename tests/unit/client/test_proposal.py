"""When a command proposes a recentring file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from sealign_client import Classification
from sealign_client.cli.proposal import FEWEST_TEXTS, ProposesAdapt


class Verdicts:
    """Gives each text the verdict that it names."""

    def classify(self, texts: Any, task: str | None = None) -> list[Classification]:
        verdicts = {"in": True, "out": False, "unknown": None}
        return [
            Classification("a", 0, None, None, ("a", "b"), (1.0, 0.0), {}, in_distribution=verdicts[text])
            for text in texts
        ]

    def classify_each(self, texts: Iterable[str], task: str | None = None) -> Iterator[Classification]:
        return iter(self.classify(list(texts), task))


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(
    ("texts", "proposed"),
    [
        (["in"] * FEWEST_TEXTS, False),
        (["in"] * 280 + ["out"] * 20, False),
        (["in"] * 200 + ["out"] * 100, True),
        (["unknown"] * FEWEST_TEXTS, True),
        (["out"] * (FEWEST_TEXTS - 1), False),
    ],
)
def test_a_recentring_file_is_proposed_where_many_texts_seem_strange(
    texts: list[str], proposed: bool, each: bool
) -> None:
    watched = ProposesAdapt(Verdicts())
    found = list(watched.classify_each(texts)) if each else watched.classify(texts)
    assert len(found) == len(texts)
    assert (watched.proposal is not None) == proposed
