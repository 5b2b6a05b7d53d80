"""A setting becomes an option of a command and a row of the reference page, without being written again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from sealign.app.console import command_line
from sealign.app.options import reference_table, with_options
from sealign.app.settings import LayeredSettings
from tests.unit.app.sample import SampleSettings


def _program(**options: Any) -> typer.Typer:
    app = command_line("An invented program.", "1.2.3")

    @app.command()
    @with_options(SampleSettings, **options)
    def serve(
        directory: Path,
        given: dict[str, Any],
        as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    ) -> None:
        """Serve what is in DIRECTORY."""
        typer.echo(json.dumps({"directory": str(directory), "json": as_json, **given}, default=str))

    return app


def _invoke(*arguments: str, columns: int = 80, **options: Any) -> str:
    result = CliRunner().invoke(_program(**options), arguments, env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_command_gets_what_was_given_and_nothing_else() -> None:
    assert json.loads(_invoke("serve", "silo")) == {"directory": "silo", "json": False}
    arguments = ["--workers", "3", "--tls-cert", "a.pem", "--batch-rows", "1,32", "--share-examples", "--mode", "plain"]
    assert json.loads(_invoke("serve", "silo", "--json", *arguments)) == {
        "directory": "silo",
        "json": True,
        "workers": 3,
        "tls_cert": "a.pem",
        "batch_rows": "1,32",
        "share_examples": True,
        "mode": "plain",
    }
    assert json.loads(_invoke("serve", "silo", "--no-share-examples"))["share_examples"] is False


def test_help_says_default_and_variable_and_cuts_no_name() -> None:
    for columns in (80, 40):
        output = " ".join(_invoke("serve", "--help", columns=columns).split())
        assert "--share-examples / --no-share-examples Share examples with clients. Default: no." in output
        assert "--tls-client-ca <path>" in output
    output = " ".join(_invoke("serve", "-h").split())
    assert "Worker processes | typically one per core. Default: 1. Variable: SEALIGN_SILO_WORKERS." in output
    assert "--mode <plain|encrypted>" in output
    assert "Certificate chain, PEM. Required. Variable: SEALIGN_SILO_TLS_CERT." in output
    assert "given" not in output


def test_a_secret_and_an_excluded_field_have_no_option() -> None:
    output = _invoke("serve", "--help", exclude=["workers"])
    assert "--passphrase" not in output
    assert "--workers" not in output


def test_the_command_keeps_its_name_and_its_documentation() -> None:
    assert "Serve what is in DIRECTORY." in _invoke("serve", "--help")
    assert _invoke("--version") == "1.2.3\n"


def test_a_table_of_reference() -> None:
    lines = reference_table(SampleSettings).splitlines()
    assert len(lines) == 2 + len(SampleSettings.model_fields)
    assert all(line.replace("\\|", "").count("|") == 7 for line in lines)
    rows = {line.split("`")[1]: line for line in lines[2:]}
    assert rows["workers"] == (
        "| `workers` | `--workers` | `SEALIGN_SILO_WORKERS` | integer, ≥ 1, ≤ 256 | `1` "
        "| Worker processes \\| typically one per core. |"
    )
    assert rows["passphrase"].startswith("| `passphrase` |  | `SEALIGN_SILO_PASSPHRASE` | text |  |")
    assert "| `plain`, `encrypted` | `plain` |" in rows["mode"]
    assert "| required |" in rows["tls_cert"]
    assert "`--share-examples/--no-share-examples`" in rows["share_examples"]


def test_a_setting_without_a_description_is_refused() -> None:
    class Undescribed(LayeredSettings):
        prefix: ClassVar[str] = "SEALIGN_SILO_"

        workers: int = Field(default=1)

    with pytest.raises(TypeError, match="setting workers has no description"):
        reference_table(Undescribed)
