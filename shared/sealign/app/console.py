"""One frame for every command line: its options, its exit statuses, its one line for each error.

Exit statuses: 0 done, 1 failed, 2 wrong input, 75 try again later, 77 not permitted, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import typer

from sealign.app.terminal import visible
from sealign.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    NotPermittedError,
    OverloadedError,
    SealignError,
    UnavailableError,
)

FAILED, WRONG_INPUT, TRY_AGAIN, NOT_PERMITTED, INTERRUPTED = 1, 2, 75, 77, 130

TRACEBACK = "SEALIGN_TRACEBACK"
"""Variable that, if set, adds the traceback to the line about an error that nobody foresaw."""

_GRACE = 0.8
"""Seconds that an interrupted program has to end by itself."""


def command_line(summary: str, version: str) -> typer.Typer:
    """Return the command line of a program, with ``--version``, ``-h`` and plain help that cuts no name.

    Args:
        summary: what the program is for.
        version: what ``--version`` prints.
    """
    app = typer.Typer(
        help=summary,
        epilog="Exit status: 0 done, 1 failed, 2 wrong input, 75 try again later, 77 not permitted, 130 interrupted.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(version)
            raise typer.Exit

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", callback=show, is_eager=True, help="Show the version and exit."
        ),
    ) -> None:
        del version

    return app


def run(app: Callable[[], Any]) -> None:
    """Run a command line and exit with its status; every error becomes one line on standard error.

    Ctrl-C ends the program within a second, also while other threads compute; what was printed stays printed.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by who started the program
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, _interrupt)
    status = _outcome(app)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _abandon_output()
        status = status or _unwritable(error)
    sys.exit(status)


def exit_status(error: SealignError) -> int:
    """Return the exit status of a command that ended with an error."""
    if isinstance(error, (UnavailableError, OverloadedError)) or error.retry_after is not None:
        return TRY_AGAIN
    if isinstance(error, (NotPermittedError, AuthenticationError)):
        return NOT_PERMITTED
    return WRONG_INPUT if isinstance(error, (InvalidInputError, NotFoundError)) else FAILED


def _outcome(app: Callable[[], Any]) -> int:
    """Run the command line and return its exit status."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED if end.code else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except SealignError as error:
        _complain(str(error))
        return exit_status(error)
    except OSError as error:
        return _unwritable(error)
    except Exception as error:  # noqa: BLE001 (the last resort: a bug is one line too)
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        _complain(
            f"Sealign failed in a way that it does not foresee: {type(error).__name__}: {error}. "
            f"Set {TRACEBACK}=1, run the command again and report what it prints."
        )
        return FAILED
    return 0


def _unwritable(error: OSError) -> int:
    """Complain about a file or stream, but not about a reader who has seen enough; return the exit status."""
    if error.errno != errno.EPIPE:
        _complain(f"Could not read or write {error.filename or 'the output'}: {error.strerror or error}.")
    _abandon_output()
    return FAILED


def _complain(message: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"error: {visible(message)}", file=sys.stderr, flush=True)


def _abandon_output() -> None:
    """Send what is still to be printed nowhere, so that the interpreter does not fail over it when it ends."""
    if sys.stdout is not None:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Unwind as Ctrl-C does, and end the process if that takes long or the user asks again."""
    del signum, frame
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    for seconds, act in ((_GRACE / 2, _flush), (_GRACE, lambda: os._exit(INTERRUPTED))):
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()
    raise KeyboardInterrupt


def _flush() -> None:
    if sys.stdout is not None:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
