"""How much memory a map between hidden states takes, and how long, by the number of positions.

Usage: python -m tests.benchmarks.bench_positions [4000 40000]

Random states of the widths of Gemma-3-270M's forecast rows (1,281) and SmolLM2-135M's (576) go to files, are whitened
and aligned by ridge regression, and the map is refined for one epoch over a head of 2,048 outputs. Each number of
positions has a process of its own. Anonymous memory is what the process cannot give back; resident memory also counts
pages of mapped files.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

_CLIENT, _SILO, _OUTPUTS = 1281, 576, 2048
_TEXT = 160
"""Positions of a text."""


def measure(positions: int) -> None:
    """Print the peaks of memory and the seconds of each step."""
    from sealign.alignment import RidgeStatistics, fit_ridge
    from sealign.encoders.causal import OutputHead
    from sealign.files import resumed_rows, row_parts
    from sealign.generation.kl import refine_by_divergence
    from sealign.generation.whitening import Whitening

    peaks, seconds, ended = {"RssAnon": 0, "VmRSS": 0}, [], threading.Event()
    threading.Thread(target=_watch, args=(peaks, ended), daemon=True).start()
    counts = [min(_TEXT, positions - start) for start in range(0, positions, _TEXT)]
    begun = perf_counter()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        folder = Path(directory)
        shared = np.random.default_rng(0).standard_normal((64, _CLIENT)).astype(np.float32)
        X = resumed_rows(folder / "client", counts, _CLIENT, lambda _: _texts(counts, shared))
        Y = resumed_rows(folder / "silo", counts, _SILO, lambda _: _texts(counts, shared[:, :_SILO]))
        X = Whitening.fit(X).spilled(X, folder)
        seconds.append(perf_counter() - begun)
        statistics = RidgeStatistics(_CLIENT, _SILO)
        for x, y in zip(row_parts(X), row_parts(Y), strict=True):
            statistics.update(x, y)
        ridge = fit_ridge(statistics, source_fingerprint="1" * 64, target_fingerprint="2" * 64, public_set="0" * 64)
        seconds.append(perf_counter() - begun)
        weight = np.random.default_rng(1).standard_normal((_OUTPUTS, _SILO), dtype=np.float32) / np.float32(24)
        refine_by_divergence(ridge, OutputHead(weight, None), X, Y, epochs=1)
        seconds.append(perf_counter() - begun)
    ended.set()
    states, fit, refined = np.diff([0, *seconds])
    print(
        f"{positions:9,d} {peaks['RssAnon'] / 1024:10.0f} {peaks['VmRSS'] / 1024:10.0f} "
        f"{states:8.0f} {fit:8.0f} {refined:8.0f}",
        flush=True,
    )


def _texts(counts: list[int], shared: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield states of texts: a part that both sides share, and noise."""
    hidden, noise = np.random.default_rng(2), np.random.default_rng(shared.shape[1])
    for count in counts:
        rows = hidden.standard_normal((count, len(shared)), dtype=np.float32) @ shared
        yield rows + noise.standard_normal(rows.shape, dtype=np.float32)


def _watch(peaks: dict[str, int], ended: threading.Event) -> None:
    """Note the largest memory of this process, in KiB."""
    while not ended.wait(0.05):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        measure(int(sys.argv[2]))
    else:
        print("positions  anonymous   resident   states    ridge   refine   (MiB, seconds)", flush=True)
        for number in sys.argv[1:] or ["4000", "40000"]:
            subprocess.run([sys.executable, "-m", "tests.benchmarks.bench_positions", "one", number], check=True)
