"""All commands of ``sealign``."""

from __future__ import annotations

from sealign.app.console import command_line
from sealign_client.cli import adapt, align, classify, coverage, daemon, generate, keys, maps, tasks
from sealign_client.version import __version__

app = command_line("Use a silo's models on texts that never leave this machine unencrypted.", __version__)

for module in (align, classify, generate, adapt, coverage, tasks, daemon):
    module.add(app)
app.add_typer(maps.app, name="maps")
app.add_typer(keys.app, name="keys")
