"""Progress of long work on standard error: a bar on a terminal, else one line every 10 seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sealign.app.terminal import is_terminal, stderr, visible

LINE_SECONDS = 10.0
"""Seconds between two lines of progress where standard error is no terminal."""


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many items are done. Yield the function that adds to them.

    Args:
        what: the work, such as "embedding".
        total: number of items; None if it is not known.
    """
    if not is_terminal():
        with _lines(_Count(what, "", 1, total)) as count:
            yield lambda more: count.move(count.done + more, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task(visible(what), total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def transfer(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many bytes have crossed the wire. Yield the function that takes bytes done and bytes in all."""
    if not is_terminal():
        with _lines(_Count(what, " MB", 1_000_000, None)) as count:
            yield count.move
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=stderr(), transient=True)
    task = bar.add_task(visible(what), total=None, start=False)

    def move(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
            bar.start_task(task)
        bar.update(task, completed=done, total=total)

    try:
        yield move
    finally:
        bar.stop()


@dataclass
class _Count:
    """How much of some work is done, and the line that says so."""

    what: str
    unit: str
    size: int
    total: int | None
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def move(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total

    @property
    def is_under_way(self) -> bool:
        """Whether there is anything to say: a transfer has begun, and the end is not reached."""
        return self.done > 0 if self.total is None else self.done < self.total

    def __str__(self) -> str:
        if not self.total:
            return f"{self.what}: {self.done // self.size}{self.unit} done"
        share = self.done / self.total
        left = (time.monotonic() - self.started) * (1 / share - 1) if share else None
        wait = "" if left is None else f", {left:.0f} s left"
        return f"{self.what}: {self.done // self.size} of {self.total // self.size}{self.unit} ({share:.0%}){wait}"


@contextmanager
def _lines(count: _Count) -> Iterator[_Count]:
    """Write the count every few seconds, also while nothing moves."""
    finished = threading.Event()

    def write() -> None:
        while not finished.wait(LINE_SECONDS):
            if count.is_under_way:
                print(visible(count), file=sys.stderr, flush=True)

    writer = threading.Thread(target=write, name="progress", daemon=True)
    writer.start()
    try:
        yield count
    finally:
        finished.set()
        writer.join(timeout=1)
