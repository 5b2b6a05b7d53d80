"""A silo under load, beside the targets: what `tests.benchmarks.bench_load` prints, as a table.

Usage: python -m tests.load.load [seconds] [workers]
"""

from __future__ import annotations

import re
import subprocess
import sys

_TARGETS = (
    ("throughput, d=768, C=4, TLS, budgets and audit on", "at least 600/s"),
    ("half of that", "p99 at most 50 ms"),
    ("four times as much", "80 % of the throughput answered; refusals, which clients retry, within 50 ms"),
    ("half of it, 2 s after the flood", "answered as before"),
)
_ANSWERED = re.compile(r": answered ([\d.]+)/s")
_BESIDE = re.compile(r"(\w+) \d+%, p50 [\d.]+ ms, p99 ([\d.]+) ms")
_REFUSALS = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "CANCELLED")
"""By Python, or by gRPC's core: see the decision record on the queue."""


def met(lines: list[str]) -> list[bool]:
    """Return which targets the lines of the benchmark meet, in the targets' order."""
    rates = [float(_ANSWERED.findall(line)[0]) for line in lines]
    p99s = [{status: float(p99) for status, p99 in _BESIDE.findall(line)} for line in lines]
    return [
        rates[0] >= 600,
        p99s[1].keys() == {"OK"} and p99s[1]["OK"] <= 50,
        rates[2] >= 0.8 * rates[0] and all(p99s[2].get(status, 0.0) <= 50 for status in _REFUSALS),
        p99s[3].keys() == {"OK"} and rates[3] >= 0.95 * rates[1],
    ]


def main(arguments: list[str]) -> int:
    """Run the benchmark, print the table, and return its exit status: figures are figures, and fail nothing."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_load", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    first, _, *lines = ran.stdout.strip().splitlines()
    print(f"{first}\n\n| load | target | measured | |\n| --- | --- | --- | --- |")
    for (what, target), line, good in zip(_TARGETS, lines, met(lines), strict=True):
        print(f"| {what} | {target} | {line.partition(': ')[2]} | {'met' if good else 'MISSED'} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:] or ["60", "2"]))
