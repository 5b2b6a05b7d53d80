"""Answers for rows of which some cannot be used: a bad one takes no other down."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from sealign.errors import InvalidInputError
from sealign_client.records import Record
from sealign_client.results import Classification


class OnError(str, enum.Enum):
    """What becomes of a row that cannot be classified."""

    FAIL = "fail"
    SKIP = "skip"
    LABEL = "label"


class Classifies(Protocol):
    """A client, or a running daemon."""

    def classify(self, texts: list[str], task: str | None = None) -> list[Classification]:
        """Return the classifications of texts, in their order."""
        ...


RowAnswer: TypeAlias = Classification | InvalidInputError
"""A result, or why there is none."""


def answers(classifier: Classifies, task: str | None, records: Sequence[Record]) -> list[RowAnswer]:
    """Return an answer for each row, in their order.

    Raises:
        SealignError: as `Client.classify`, for reasons that are not a row's.
    """
    found = iter(_of_texts(classifier, task, [record.text for record in records if record.fault is None]))
    return [next(found) if record.fault is None else InvalidInputError(record.fault) for record in records]


def _of_texts(classifier: Classifies, task: str | None, texts: list[str]) -> Sequence[RowAnswer]:
    """Return an answer for each text: a piece with faulty texts is halved until they are alone."""
    if not texts:
        return []
    try:
        return classifier.classify(texts, task)
    except InvalidInputError as error:
        if len(texts) == 1:
            return [error]
        half = len(texts) // 2
        return [*_of_texts(classifier, task, texts[:half]), *_of_texts(classifier, task, texts[half:])]
