"""Generate the reference pages that follow from the code: ``python deploy/docs/generate.py [OUTPUT_DIRECTORY]``.

Commands and options come from the command lines, settings from their classes, error codes from `sealign.errors`,
names from `sealign_client`, and messages from the comments of the wire contract.
``tests/docs/test_generated_pages.py`` checks that the pages are current.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

import sealign_client
from sealign import errors
from sealign.app.options import reference_table
from sealign.errors import MachineError, SealignError
from sealign.lab.cli import app as lab_app
from sealign_client.cli.commands import app as client_app
from sealign_client.settings import ClientSettings
from sealign_server.cli import app as server_app
from sealign_server.settings import ServeSettings

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = REPOSITORY / "deploy" / "docs" / "pages" / "reference"
CONTRACT_FILES = ("types", "silo", "alignment", "classification", "generation", "daemon")
NOTE = "<!-- Made by `python deploy/docs/generate.py`. Edit the code, not this page. -->\n"
_EVERYWHERE = {"--help", "--install-completion", "--show-completion"}
_WIDE = "200"  # columns: help texts are not to be broken here
_KINDS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
_FIELD = DescriptorProto.FIELD_FIELD_NUMBER
_NESTED = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
_SERVICE = FileDescriptorProto.SERVICE_FIELD_NUMBER
_METHOD = ServiceDescriptorProto.METHOD_FIELD_NUMBER


def generate(output: Path) -> None:
    """Write every generated page into ``output``."""
    pages = {
        "command-line": command_line,
        "settings": settings,
        "errors": error_codes,
        "python": python,
        "wire": wire,
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, make in pages.items():
        (output / f"{name}.md").write_text(NOTE + make(), encoding="utf-8")


def command_line() -> str:
    """Return the page of the three command lines."""
    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = _WIDE
    parts = [
        "# Command line\n\n"
        "Options that are also settings have a variable and a file key; see [settings](settings.md). "
        "Every command has `--help`.\n\n"
        "| exit status | meaning |\n| --- | --- |\n"
        "| 0 | done |\n| 1 | failed |\n| 2 | wrong input |\n| 75 | try again later |\n| 77 | not permitted |\n"
        "| 130 | interrupted |\n"
    ]
    for name, app in (("sealign", client_app), ("sealign-server", server_app), ("sealign-lab", lab_app)):
        parts.extend(_command(name, typer.main.get_command(app), depth=2))
    return "\n".join(parts)


def settings() -> str:
    """Return the page of both programs' settings."""
    return (
        "# Settings\n\n"
        "A flag or keyword argument has precedence over a variable, and a variable over the file. "
        "An unknown name is refused in all three. An empty variable counts as not set.\n\n"
        "## Silo\n\n"
        "For `sealign-server serve DIRECTORY`. The file is `DIRECTORY/silo.toml`.\n\n"
        f"{reference_table(ServeSettings)}\n"
        "## Client\n\n"
        "For the SDK, the daemon and `sealign`. The file is given with `--config`.\n\n"
        f"{reference_table(ClientSettings)}"
    )


def error_codes() -> str:
    """Return the page of error codes."""
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, SealignError) and value is not SealignError
    ]
    lines = [
        "# Errors\n",
        "All errors derive from `sealign.errors.SealignError`. On the wire an error is a gRPC status with "
        "`google.rpc.ErrorInfo`: the domain is `sealign` and the reason is the code. "
        "`google.rpc.RetryInfo` is present if waiting helps; in Python it is `retry_after`, in seconds.\n",
        "Errors of the second kind stay at the machine where they happened. The other side receives `PEER_FAILED` "
        "with an id, under which the log has the reason.\n",
        "| code | gRPC status | Python class | meaning |\n| --- | --- | --- | --- |",
    ]
    for value in classes:
        status = "never sent" if issubclass(value, MachineError) else f"`{value.status}`"
        lines.append(f"| `{value.code}` | {status} | `{value.__name__}` | {_cell(inspect.getdoc(value) or '')} |")
    return "\n".join(lines) + "\n"


def python() -> str:
    """Return the page of the client's Python interface; the site fills it from signatures and docstrings."""
    values = {name: getattr(sealign_client, name) for name in sealign_client.__all__ if not name.startswith("__")}
    raised = [name for name, value in values.items() if isinstance(value, type) and issubclass(value, SealignError)]
    parts = [
        "# Python\n\n"
        "The whole public interface of `sealign_client`. It is installed with `pip install 'sealign[client]'`.\n\n"
        f"It also exports these [errors](errors.md): {', '.join(f'`{name}`' for name in raised)}.\n"
    ]
    main = ("Client", "AsyncClient")
    others = (name for name in values if name not in (*main, *raised))
    parts.extend(f"::: sealign_client.{name}\n" for name in (*main, *others))
    return "\n".join(parts)


def wire() -> str:
    """Return the page of services and messages."""
    parts = [
        "# Wire contract\n\n"
        "gRPC, package `sealign.v1`. Clients and silos speak `Silo`, `Alignment`, `Classification` and `Generation`. "
        "Applications speak `Daemon`. [Bytes on the wire](protocol.md) defines how bytes become polynomials.\n"
    ]
    for file in _contract().file:
        if file.package == "sealign.v1":
            parts.extend(_contract_file(file, Path(file.name).name))
    return "\n".join(parts)


def _command(name: str, command: Any, depth: int) -> Iterator[str]:
    context = typer.Context(command, info_name=name)
    children = command.list_commands(context) if hasattr(command, "list_commands") else []
    yield f"{'#' * depth} {name}\n"
    if command.help:
        yield inspect.cleandoc(command.help) + "\n"
    if not children:
        yield f"```console\n$ {name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    options = [option for option in command.get_params(context) if not _EVERYWHERE.intersection(option.opts)]
    records = [record for option in options if (record := option.get_help_record(context)) is not None]
    if records:
        rows = [f"| `{_cell(option)}` | {_cell(meaning)} |" for option, meaning in records]
        yield "\n".join(["| option | meaning |", "| --- | --- |", *rows]) + "\n"
    for child in children:
        yield from _command(f"{name} {child}", command.get_command(context, child), depth + 1)


def _contract() -> FileDescriptorSet:
    """Return the contract with its comments; protoc runs by itself, since its protobuf and TenSEAL's do not get on."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "contract"
        arguments = [
            f"--proto_path={REPOSITORY / 'proto'}",
            "--include_source_info",
            f"--descriptor_set_out={output}",
            *(f"sealign/v1/{name}.proto" for name in CONTRACT_FILES),
        ]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)
        return FileDescriptorSet.FromString(output.read_bytes())


def _contract_file(file: FileDescriptorProto, name: str) -> Iterator[str]:
    comments = {tuple(place.path): _prose(place.leading_comments) for place in file.source_code_info.location}
    syntax = (FileDescriptorProto.SYNTAX_FIELD_NUMBER,)
    opening = next((p for p in file.source_code_info.location if tuple(p.path) == syntax), None)
    yield f"## {name}\n"
    if opening is not None:
        yield _prose(opening.leading_comments) + "\n"
    for index, service in enumerate(file.service):
        rows = []
        for number, method in enumerate(service.method):
            request = ("stream " if method.client_streaming else "") + _type_name(method.input_type)
            reply = ("stream " if method.server_streaming else "") + _type_name(method.output_type)
            about = comments.get((_SERVICE, index, _METHOD, number), "")
            rows.append(f"| `{method.name}` | `{request}` | `{reply}` | {_cell(about)} |")
        yield f"### service {service.name}\n"
        yield "\n".join(["| call | request | reply | |", "| --- | --- | --- | --- |", *rows]) + "\n"
    for index, message in enumerate(file.message_type):
        yield f"### {message.name}\n"
        if about := comments.get((_NESTED, index), ""):
            yield about + "\n"
        if message.field:
            yield _fields(message, index, comments)


def _fields(message: DescriptorProto, index: int, comments: dict[tuple[int, ...], str]) -> str:
    rows = ["| number | field | type | |", "| --- | --- | --- | --- |"]
    for number, field in enumerate(message.field):
        about = comments.get((_NESTED, index, _FIELD, number), "")
        rows.append(f"| {field.number} | `{field.name}` | {_field_type(message, field)} | {_cell(about)} |")
    return "\n".join(rows) + "\n"


def _field_type(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    name = _type_name(field.type_name) or _KINDS[field.type]
    if name in entries:
        key, value = entries[name].field
        return f"`map<{_KINDS[key.type]}, {_type_name(value.type_name) or _KINDS[value.type]}>`"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated `{name}`"
    if field.proto3_optional:
        return f"optional `{name}`"
    if field.HasField("oneof_index"):
        return f"`{name}`, one of `{message.oneof_decl[field.oneof_index].name}`"
    return f"`{name}`"


def _type_name(qualified: str) -> str:
    return qualified.rpartition(".")[2]


def _prose(comment: str) -> str:
    return "\n".join(line.removeprefix(" ") for line in comment.strip("\n").splitlines()).strip()


def _cell(text: str) -> str:
    """Return text on one line, without what ends a table cell."""
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGES)
