"""Structured logs: one JSON object per line on standard error, or colours on a terminal.

Events carry names, counts, bytes, milliseconds and fingerprints. They never carry a text, an
embedding, a logit or a key; callers pass such facts only as counts.

Lines that libraries write (Python's ``logging`` and ``warnings``, tracebacks, gRPC's core in C++) become objects too,
with the library as ``logger``.
"""

from __future__ import annotations

import atexit
import faulthandler
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

import structlog

from sealign.errors import InvalidInputError

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""Log levels by name."""

# What gRPC's core writes: severity and date, time, thread, place in the source, message.
_CORE = re.compile(r"([IWEF])\d{4} \S+\s+\d+ (\S+:\d+)\] (.*)")
_SEVERITIES = {"I": "info", "W": "warning", "E": "error", "F": "error"}


def configure_logs(level: str = "info") -> None:
    """Send events at ``level`` and above to standard error, with what libraries write there.

    Raises:
        InvalidInputError: ``level`` is not debug, info, warning or error.
    """
    if level not in LEVELS:
        raise InvalidInputError(f"Log level {level!r} is not one of {', '.join(LEVELS)}.")
    terminal = sys.stderr is not None and sys.stderr.isatty()
    output = sys.stderr if terminal else _taken_over_stderr()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        # One write a line, so that lines of several workers do not mix.
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    # Below "warning", libraries say what nobody has to act on, and some of them the texts that they work on.
    logging.basicConfig(handlers=[_Forward()], level=max(LEVELS[level], logging.WARNING), force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = lambda thrown: _log_uncaught(
        thrown.exc_type, thrown.exc_value or thrown.exc_type(), thrown.exc_traceback
    )
    threading.excepthook = lambda thrown: _log_uncaught(
        thrown.exc_type, thrown.exc_value or thrown.exc_type(), thrown.exc_traceback
    )


class _Forward(logging.Handler):
    """Turns records of Python's ``logging`` into events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record as an event under the name of its logger."""
        facts: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[0]:
            facts["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, record.getMessage().strip(), **facts)


def _log_uncaught(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    structlog.get_logger().error("uncaught exception", exc_info=(kind, value, trace))


def _taken_over_stderr() -> TextIO:
    """Return a stream to where standard error goes, and turn what others write to standard error into objects.

    Libraries in C++ know file descriptor 2 alone; so it becomes a pipe, and a thread reads it. What Python
    itself says of a crash goes past the pipe.
    """
    try:
        if sys.stderr.fileno() != 2:
            return sys.stderr  # replaced by a program that captures it
    except (AttributeError, io.UnsupportedOperation):
        return sys.stderr or open(os.devnull, "w")  # noqa: PTH123
    global _real
    if _real is None:
        _real = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
        faulthandler.enable(_real)
        source, sink = os.pipe()
        os.dup2(sink, 2)
        os.close(sink)
        reader = threading.Thread(target=_forward_lines, args=(source, _real), name="stderr", daemon=True)
        reader.start()
        atexit.register(_give_back_stderr, reader)
    return _real


@contextmanager
def direct_stderr() -> Iterator[None]:
    """Let processes that are started inside write to standard error itself.

    Through this process's pipe, their log would end with this process.
    """
    if _real is None:
        yield
        return
    pipe = os.dup(2)
    os.dup2(_real.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(pipe, 2)
        os.close(pipe)


_real: TextIO | None = None
"""Where standard error goes, once this process has taken it over."""


def _forward_lines(source: int, real: TextIO) -> None:
    """Write lines that are objects already (of worker processes) as they are, and others as objects."""
    with os.fdopen(source, encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            text = line.rstrip()
            if text.startswith("{"):
                real.write(text + "\n")
                real.flush()
            elif text:
                core = _CORE.fullmatch(text)
                logger, place, level, event = "stderr", {}, "warning", text
                if core:
                    logger, place, event = "grpc", {"place": core[2]}, core[3]
                    level = _SEVERITIES[core[1]]
                structlog.get_logger().log(LEVELS[level], event, logger=logger, **place)


def _give_back_stderr(reader: threading.Thread) -> None:
    """Let the pipe run empty before the process ends."""
    if _real is not None:
        sys.stderr.flush()
        os.dup2(_real.fileno(), 2)
        reader.join(timeout=1)
