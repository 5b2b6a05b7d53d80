"""The command line of a silo: ``sealign-server``. Modules are imported when a command needs them."""

from __future__ import annotations

import sys

import structlog

from sealign.app.console import command_line, run
from sealign_server import __version__
from sealign_server.cli import (
    auditing,
    doctor,
    generation,
    identities,
    info,
    keeping,
    making,
    managing,
    policy,
    serving,
    signing,
    synthesizing,
)

app = command_line(
    "Run a silo: serve classifiers and language-model heads to clients that show you no text.", __version__
)
for module in (
    making,
    synthesizing,
    generation,
    serving,
    info,
    managing,
    identities,
    policy,
    auditing,
    signing,
    keeping,
    doctor,
):
    module.add_to(app)


def main() -> None:
    """Run ``sealign-server``."""
    # What is logged on the way is no part of a command's output; serve has a log of its own.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    run(app)
