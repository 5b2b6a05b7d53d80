"""What both command lines share: one way of failing, one way of showing progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from sealign.errors import SealignError

stderr = Console(stderr=True)


def run(app: typer.Typer) -> None:
    """Run a command line; one of our errors becomes one line on standard error and exit status 1."""
    try:
        app()
    except SealignError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; yields the function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def transfer(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes and time left on standard error, shown from the first call on.

    Yields the function that moves it: bytes done, bytes in all.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=stderr, transient=True)
    task = bar.add_task(what, total=None, start=False)

    def move(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
            bar.start_task(task)
        bar.update(task, completed=done, total=total)

    try:
        yield move
    finally:
        bar.stop()
