"""Answers for rows of which some cannot be used: a bad one takes no other down."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

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

    def classify(self, texts: Any, task: str | None = None) -> list[Classification]:
        """Return the classifications of a list of texts, or of embeddings (n, d) if it is a client, in their order."""
        ...


RowAnswer: TypeAlias = Classification | InvalidInputError
"""A result, or why there is none."""


def answers(classifier: Classifies, task: str | None, records: Sequence[Record]) -> list[RowAnswer]:
    """Return an answer for each row, in their order.

    Raises:
        SealignError: as `Client.classify`, for reasons that are not a row's.
    """
    found = iter(_of_good(classifier, task, [record for record in records if record.fault is None]))
    return [next(found) if record.fault is None else InvalidInputError(record.fault) for record in records]


def _of_good(classifier: Classifies, task: str | None, records: Sequence[Record]) -> Sequence[RowAnswer]:
    """Return an answer for each row: a piece with rows that are refused is halved until they are alone."""
    if not records:
        return []
    try:
        return classifier.classify(_content(records), task)
    except InvalidInputError as error:
        if len(records) == 1:
            return [error]
        half = len(records) // 2
        return [*_of_good(classifier, task, records[:half]), *_of_good(classifier, task, records[half:])]


def _content(records: Sequence[Record]) -> Any:
    """Return the texts of rows, or their embeddings, (n, d)."""
    embeddings = [record.embedding for record in records if record.embedding is not None]
    if not embeddings:
        return [record.text for record in records]
    import numpy as np

    return np.stack(embeddings)
