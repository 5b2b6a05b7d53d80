"""A silo's classifier as a function of pandas frames: partitions of Dask, batches of Ray Data, mapInPandas of Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from sealign.errors import InvalidInputError
from sealign_client.blocking import Client
from sealign_client.records import Record
from sealign_client.results import Classification
from sealign_client.row_answers import OnError, RowAnswer, answers

if TYPE_CHECKING:
    import pandas as pd

    from sealign_client.settings import ClientSettings

_ADDED = ("label", "probability", "in_distribution")
_making = Lock()


class FrameClassifier:
    """Adds the columns ``label``, ``probability`` and ``in_distribution`` to frames that have a column of texts.

    It can be pickled. Each process that calls one makes one client of its settings, and with it loads one model. An
    empty frame is answered without a client, which gives the types of the columns.

    Args:
        settings: of the client; files that they name must be where the process runs.
        column: that holds the texts.
        task: name of the silo's task; may be left out if there is only one.
        on_error: what becomes of a row that cannot be classified; LABEL adds a column ``error``.
    """

    def __init__(
        self,
        settings: ClientSettings,
        column: str = "text",
        task: str | None = None,
        on_error: OnError | str = OnError.FAIL,
    ) -> None:
        self._settings, self._column, self._task = settings, column, task
        self._on_error = OnError(on_error)

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a frame with the answers, in its order and with its index.

        Raises:
            InvalidInputError: there is no such column, or one with the name of an added one; or a row cannot be
                classified, unless such rows are skipped or labelled.
            SealignError: as `Client.classify`.
        """
        added = (*_ADDED, "error") if self._on_error is OnError.LABEL else _ADDED
        if self._column not in frame.columns or not frame.columns.intersection(list(added)).empty:
            raise InvalidInputError(
                f"The frame needs a column {self._column!r} and none of {', '.join(added)}; its columns are: "
                f"{', '.join(map(str, frame.columns))[:300]}."
            )
        records = [_record(number, cell) for number, cell in enumerate(frame[self._column], 1)]
        found = answers(client_of(self._settings), self._task, records) if records else []
        if self._on_error is OnError.FAIL:
            for name, answer in zip(frame.index, found, strict=True):
                if isinstance(answer, InvalidInputError):
                    raise InvalidInputError(f"The row with index {name!r}: {answer}")
        elif self._on_error is OnError.SKIP:
            good = [isinstance(answer, Classification) for answer in found]
            frame, found = frame[good], [answer for answer in found if isinstance(answer, Classification)]
        return _joined(frame, found, added)

    def partitions(self, frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield each frame with its answers: what ``DataFrame.mapInPandas`` of Spark takes."""
        return map(self, frames)


def client_of(settings: ClientSettings) -> Client:
    """Return this process's client of some settings; it lasts as long as the process."""
    with _making:
        return _client(settings)


_client = lru_cache(maxsize=None)(Client)


def _record(number: int, cell: object) -> Record:
    good = isinstance(cell, str) and cell.strip()
    return Record(number, str(cell), str(number)) if good else Record(number, "", str(number), "has no text")


def _joined(frame: pd.DataFrame, found: list[RowAnswer], added: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    results = [answer if isinstance(answer, Classification) else None for answer in found]
    values = {
        "label": pd.array([result and result.label for result in results], dtype="string"),
        "probability": pd.array([result and result.probability for result in results], dtype="Float64"),
        "in_distribution": pd.array([result and result.in_distribution for result in results], dtype="boolean"),
        "error": pd.array([None if isinstance(each, Classification) else str(each) for each in found], dtype="string"),
    }
    return frame.assign(**{name: values[name] for name in added})
