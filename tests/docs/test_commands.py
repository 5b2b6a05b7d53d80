"""What documents tell the reader to type exists: commands, options, imported names."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from typing import Any

import pytest
import typer

from sealign.lab.cli import app as lab_app
from sealign_client.cli.commands import app as client_app
from sealign_server.cli import app as server_app
from tests.docs.documents import CodeBlock, code_blocks, commands, documents

_PROGRAMS = {"sealign": client_app, "sealign-server": server_app, "sealign-lab": lab_app}
_SHELL = {"console", "sh", "bash"}
_BLOCKS = [block for document in documents() for block in code_blocks(document)]
_INLINE = re.compile(r"`((?:sealign|sealign-server|sealign-lab) [a-z][^`]*)`")


def _typed() -> list[tuple[str, str]]:
    """Return every call of our programs in the documents, with its place."""
    found = [
        (block.place, line)
        for block in _BLOCKS
        if block.language in _SHELL and "reference/command-line" not in block.place
        for line in commands(block)
    ]
    for document in documents():
        if document.name != "command-line.md":
            found += [(document.name, line) for line in _INLINE.findall(document.read_text(encoding="utf-8"))]
    return [(place, words) for place, line in found for words in _calls(line)]


def _calls(line: str) -> list[str]:
    """Return the calls of our programs in a line of shell, pipes and ``&&`` considered."""
    pieces = re.split(r"\s(?:\||&&)\s", line.rstrip("& "))
    return [piece.strip() for piece in pieces if re.match(r"sealign(-server|-lab)?\s", piece.strip())]


@pytest.mark.parametrize(("place", "call"), _typed())
def test_a_command_and_its_options_exist(place: str, call: str) -> None:
    program, *words = shlex.split(call.strip(), comments=True)
    command: Any = typer.main.get_command(_PROGRAMS[program])
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        name = words.pop(0)
        command = command.get_command(typer.Context(command), name)
        assert command is not None, f"{place}: {call!r}: there is no command {name!r}"
    options = command.get_params(typer.Context(command))
    known = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{place}: {call!r} has no option {word}"


@pytest.mark.parametrize("block", [block for block in _BLOCKS if block.language == "python"], ids=lambda b: b.place)
def test_names_that_a_python_block_imports_exist(block: CodeBlock) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sealign"):
            try:
                module = importlib.import_module(node.module)
            except ModuleNotFoundError as error:
                if str(error.name).startswith("sealign"):
                    raise
                pytest.skip(f"needs {error.name}")
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{block.place}: {node.module} has no {missing}"


def test_the_documents_hold_commands() -> None:
    assert len(_typed()) > 40
