"""The command line ``sealign-lab``."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sealign import __version__
from sealign.app.console import command_line, run
from sealign.app.terminal import stderr
from sealign.ckks import DEFAULT_PRECISION, ProductShape, SecurityTable
from sealign.lab.plan_table import TYPICAL_CLASS_NORM, TYPICAL_RANGE, plan_rows, plan_table

app = command_line("Measure alignment, encrypted products and plans on one machine.", __version__)


@app.command()
def evaluate(
    spec: Annotated[Path, typer.Argument(help="TOML file: encoders, pairs, datasets, public sets, generation.")],
    output: Annotated[Path, typer.Option(help="Directory for report.html, report.md and report.json.")],
    cache: Annotated[
        Path | None, typer.Option(help="Directory for embeddings and states. Default: OUTPUT/embeddings.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A part: pair=, dataset=, public=, seed=, method= or generation=NAME, part=classification or "
            "part=generation. May be repeated."
        ),
    ] = None,
) -> None:
    """Measure what alignment costs and which method wins it back, and report it.

    An interrupted run resumes. Both sides' encoders run here: this is for a silo's operator or a researcher, not for a
    client of somebody's silo.
    """
    from sealign.lab.evaluation import EvaluationSpec, run_evaluation, write_report  # needs the extra `lab`

    command = f"sealign-lab evaluate {spec}" + "".join(f" --only {item}" for item in only or ())
    report = run_evaluation(EvaluationSpec.load(spec), output, cache or output / "embeddings", only or (), command)
    for path in write_report(report, output):
        typer.echo(f"wrote {path}")


@app.command()
def bench(
    output: Annotated[Path, typer.Option(help="Directory for product.json.")] = Path("bench-output"),
    quick: Annotated[bool, typer.Option("--quick", help="Measure d=768, C=4 and the bulk file only.")] = False,
) -> None:
    """Measure the encrypted product against TenSEAL's own matrix product, in one run on this machine."""
    from sealign.lab.bench import bench_table, run_bench, write_bench

    rows = run_bench(quick=quick, progress=stderr().print)
    _wide_console().print(bench_table(rows))
    typer.echo(f"wrote {write_bench(rows, output)}")


@app.command()
def plan(
    dim: Annotated[int, typer.Option(help="Inner dimension d.")],
    classes: Annotated[int, typer.Option(help="Outputs C.")],
    batch: Annotated[int, typer.Option(help="Rows in a request.")] = 1,
    norm: Annotated[float | None, typer.Option(help="Frobenius norm of the weights. Default: 5·sqrt(C).")] = None,
    logit_range: Annotated[float, typer.Option("--range", help="Largest absolute logit.")] = TYPICAL_RANGE,
    precision: Annotated[float, typer.Option(help="Largest error of a logit.")] = DEFAULT_PRECISION,
    security_table: Annotated[SecurityTable, typer.Option(help="Limits of moduli.")] = SecurityTable.CLASSICAL,
    row_norm: Annotated[float, typer.Option(help="Largest norm of a row.")] = 1.0,
    column_norm: Annotated[float, typer.Option(help="Largest norm of the weights of an output.")] = inf,
    packings: Annotated[
        bool, typer.Option("--packings", help="Compare with packings that need Galois keys, for one row.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the candidates as JSON.")] = False,
) -> None:
    """Show how a product would be packed: the candidates, their bytes and their predicted times."""
    frobenius = norm if norm is not None else TYPICAL_CLASS_NORM * max(classes, 0) ** 0.5
    shape = ProductShape(
        batch, dim, classes, frobenius, logit_range, row_norm=row_norm, precision=precision, column_norm=column_norm
    )
    if packings:
        from sealign.lab.packing_table import packing_table

        _wide_console().print(packing_table(replace(shape, rows=1), security_table))
    elif as_json:
        typer.echo(json.dumps(plan_rows(shape, security_table), indent=2))
    else:
        _wide_console().print(plan_table(shape, security_table))


def main() -> None:
    """Entry point of ``sealign-lab``."""
    run(app)


def _wide_console() -> Console:
    """Tables of figures are of no use with their columns cut."""
    return Console(width=max(130, Console().width))
