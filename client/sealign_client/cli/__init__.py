"""The command line of a client: ``sealign``. Every setting is also a variable and a key of the file after --config."""

from __future__ import annotations

import os
import sys
import warnings

from sealign.app.console import run
from sealign.app.terminal import visible


def main() -> None:
    """Run ``sealign``."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its notes on reconnecting are no news to a user
    from sealign_client.cli.commands import app

    warnings.showwarning = _warn
    run(app)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as one line."""
    print(f"warning: {visible(message)}", file=sys.stderr, flush=True)
