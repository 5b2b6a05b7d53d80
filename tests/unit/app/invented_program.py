"""A command line that fails in every way; run as a program by the tests of the console."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import typer

import sealign.app.progress as shown
from sealign import errors
from sealign.app.console import command_line, run
from sealign.app.progress import progress, transfer
from sealign.app.terminal import print_table, standard_input

app = command_line("An invented program.", "1.2.3")


@app.command()
def fail(name: str) -> None:
    """Raise an error of Sealign, or another one."""
    raise getattr(errors, name, KeyError)("what the other side \x1b[31msays\nand more")


@app.command()
def lines(count: int) -> None:
    """Print lines."""
    for number in range(count):
        typer.echo(f"{number} копейка")


@app.command()
def table() -> None:
    """Print a table."""
    print_table(["task", "digest"], [["top\u202eics", "f" * 200]], title="Tasks")


@app.command()
def read() -> None:
    """Count the bytes of standard input."""
    typer.echo(len(standard_input().read()))


@app.command()
def compute(how: str) -> None:
    """Work for a minute: in a thread that is waited for, in a busy loop, or in a clean-up that does not end."""
    print("first answer")
    threading.Timer(0.3, lambda: print("ready", file=sys.stderr, flush=True)).start()
    if how == "loop":
        while True:
            sum(range(1000))
    try:
        with ThreadPoolExecutor() as pool:
            pool.submit(time.sleep, 60).result()
    finally:
        if how == "stuck":
            time.sleep(60)


@app.command()
def slow(interval: float) -> None:
    """Show progress."""
    shown.LINE_SECONDS = interval
    with progress("embedding", 100) as advance, transfer("sent") as move, progress("done", 5) as end, transfer("never"):
        end(5)
        advance(25)
        move(2_000_000, 8_000_000)
        time.sleep(4 * interval)


if __name__ == "__main__":
    run(app)
