"""All commands of ``sealign``. The module of a command is imported when the command is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from sealign.app.console import command_line
from sealign_client.version import __version__

COMMANDS = {
    "align": "Learn the map from your encoder's space to the silo's.",
    "classify": "Classify texts through ciphertexts.",
    "generate": "Generate text with the silo's head.",
    "adapt": "Measure the mean of your own texts, to remove a map's offset.",
    "coverage": "Measure how well public texts cover your own.",
    "tasks": "List the silo's tasks.",
    "doctor": "Check certificates, silo, encoder, map and a round trip.",
    "daemon": "Serve applications on this machine.",
    "maps": "List, show, delete and export maps.",
    "canaries": "List how silos have answered canaries, and forget it.",
    "keys": "List, rotate and delete stored keys.",
    "silo-keys": "List and delete pinned signing keys of silos.",
}


class _Commands(TyperGroup):
    """Commands by name, each in the module of its name."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of help."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; None if there is none."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        found = get_command(import_module(f"sealign_client.cli.{cmd_name.replace('-', '_')}").app)
        found.name = cmd_name
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app: typer.Typer = command_line("Use a silo's models on texts that never leave this machine unencrypted.", __version__)
app.info.cls = _Commands
