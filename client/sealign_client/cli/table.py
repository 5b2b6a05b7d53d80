"""``sealign classify`` over rows of a file: each keeps its identity, and a bad one takes no other down."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import typer

from sealign.errors import InvalidInputError
from sealign_client.cli.formats import Answer, ResultFormat, Writer
from sealign_client.cli.results_file import ResultsFile
from sealign_client.records import Columns, Format, Record, iterate_records, opened, require_faultless
from sealign_client.results import Classification
from sealign_client.row_answers import Classifies, OnError, RowAnswer, answers

_PIECE, _PIECE_OF_EMBEDDINGS = 128, 4096
_LANES = 3
"""Pieces under way: one is embedded, one is at the silo, one waits."""


@dataclass(frozen=True)
class Table:
    """What to classify, and how.

    Attributes:
        file: input; "-" for standard input.
        kind: its format.
        columns: where text and name of a row are.
        on_error: what becomes of a row that cannot be classified.
        output: file to write; None for standard output.
        written: format on standard output.
    """

    file: Path
    kind: Format
    columns: Columns
    on_error: OnError
    output: Path | None
    written: ResultFormat

    def classify(
        self, classifier: Classifies, task: str | None, settings: dict[str, Any], advance: Callable[[int], None]
    ) -> int:
        """Classify the rows, and return the number of those that were faulty.

        Args:
            classifier: of texts.
            task: name of the silo's task; None if there is one.
            settings: that decide the results; an interrupted output of others is not gone on with.
            advance: told how many rows were done.

        Raises:
            InvalidInputError: a row that cannot be classified, by its number, unless they are skipped or labelled.
            SealignError: as `Client.classify`; and of files.
        """
        if self.on_error is OnError.FAIL:
            require_faultless(self.file, self.kind, self.columns)
        with opened(self.file) as stream:
            rows = iterate_records(stream, self.kind, self.columns, _name(self.file))
            records = chain(list(islice(rows, 1)), rows)  # a wrong file or column is refused before a model is loaded
            results = None if self.output is None else ResultsFile(self.output, self._about(settings, task))
            classifier.classify([], task)  # refuses what does not depend on a text
            if results is None:
                writer = Writer(self.written)
                typer.echo(writer.head(), nl=False)

                def show(answer: Answer | None, _: int) -> None:
                    if answer is not None:
                        typer.echo(writer.line(answer), nl=False)

                return self._each(records, classifier, task, show, advance)
            with results:
                if results.done:
                    typer.echo(f"going on after row {results.done}", err=True)
                rest = islice(records, results.done, None)
                return self._each(rest, classifier, task, results.write, advance)

    def _about(self, settings: dict[str, Any], task: str | None) -> dict[str, Any]:
        if str(self.file) == "-":
            raise InvalidInputError("Results of standard input go to standard output: give --file to use --output.")
        facts = self.file.stat()
        return {
            **settings,
            "task": task,
            "file": str(self.file.absolute()),
            "bytes": facts.st_size,
            "changed": facts.st_mtime_ns,
            "column": self.columns.text,
            "id": self.columns.name,
            "format": self.kind.value,
            "on_error": self.on_error.value,
        }

    def _each(
        self,
        records: Iterator[Record],
        classifier: Classifies,
        task: str | None,
        write: Callable[[Answer | None, int], None],
        advance: Callable[[int], None],
    ) -> int:
        faulty = 0
        with closing(self._pieces(records, classifier, task)) as pieces:  # no thread outlives an error
            for piece, found in pieces:
                for record, result in zip(piece, found, strict=True):
                    if isinstance(result, Classification):
                        write(Answer(record, result), record.number)
                        continue
                    faulty += 1
                    if self.on_error is OnError.FAIL:
                        raise InvalidInputError(f"{_name(self.file)}: row {record.number}: {result}")
                    answer = Answer(record, None, str(result)) if self.on_error is OnError.LABEL else None
                    write(answer, record.number)
                advance(len(piece))
        return faulty

    def _pieces(
        self, records: Iterator[Record], classifier: Classifies, task: str | None
    ) -> Generator[tuple[list[Record], list[RowAnswer]], None, None]:
        """Yield pieces of rows, and an answer for each row; some are embedded while others are at the silo."""
        under_way: deque[tuple[list[Record], Future[list[RowAnswer]]]] = deque()
        pool = ThreadPoolExecutor(_LANES, thread_name_prefix="sealign-rows")
        size = _PIECE_OF_EMBEDDINGS if self.kind is Format.NPY else _PIECE
        try:
            while True:
                while len(under_way) < _LANES and (piece := list(islice(records, size))):
                    under_way.append((piece, pool.submit(answers, classifier, task, piece)))
                if not under_way:
                    return
                piece, found = under_way.popleft()
                yield piece, found.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _name(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)
