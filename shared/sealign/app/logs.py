"""Structured logs: one JSON object a line on standard error, or colours on a terminal.

Events carry names, counts, bytes, milliseconds and fingerprints. They never carry a text, an
embedding, a logit or a key; callers pass such facts only as counts.
"""

from __future__ import annotations

import logging
import sys

import structlog

from sealign.errors import InvalidInputError

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(level: str = "info") -> None:
    """Send events at ``level`` and above to standard error.

    Raises:
        InvalidInputError: ``level`` is not debug, info, warning or error.
    """
    if level not in _LEVELS:
        raise InvalidInputError(f"log level {level!r} is not one of {', '.join(_LEVELS)}")
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # One write a line, so that lines of several workers do not mix.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
