"""How much memory a map between hidden states takes, and how long, by the number of positions.

Usage: python -m tests.benchmarks.bench_positions [plain|encrypted] [4000 40000]

``plain``: random states of the widths of Gemma-3-270M's forecast rows (1,281) and SmolLM2-135M's (576) go to files, are
whitened and aligned by ridge regression, and the map is refined for one epoch over a head of 2,048 outputs.
``encrypted``: states of widths 320 and 288 go to files, and both sides of an encrypted alignment run in one process.
The silo's sums are part of its memory; how large they are depends on the plan.
Each number of positions has a process of its own. Anonymous memory is what the process cannot give back; resident
memory also counts pages of mapped files.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_PLAIN, _ENCRYPTED, _OUTPUTS = (1281, 576), (320, 288), 2048
_TEXT = 160
"""Positions of a text."""


States: TypeAlias = NDArray[np.float16]
Lap: TypeAlias = Callable[[], None]


def measure(kind: str, positions: int) -> None:
    """Print the peaks of memory and the seconds of each step."""
    from sealign.files import resumed_rows

    peaks, ended = {"RssAnon": 0, "VmRSS": 0}, threading.Event()
    threading.Thread(target=_watch, args=(peaks, ended), daemon=True).start()
    counts = [min(_TEXT, positions - start) for start in range(0, positions, _TEXT)]
    steps, (client, silo) = (plain, _PLAIN) if kind == "plain" else (encrypted, _ENCRYPTED)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        laps = [perf_counter()]
        folder = Path(directory)
        shared = np.random.default_rng(0).standard_normal((64, client)).astype(np.float32)
        X = resumed_rows(folder / "client", counts, client, lambda _: _texts(counts, shared))
        Y = resumed_rows(folder / "silo", counts, silo, lambda _: _texts(counts, shared[:, :silo]))
        sums = steps(X, Y, folder, lambda: laps.append(perf_counter()))
    ended.set()
    seconds = " ".join(f"{second:8.0f}" for second in np.diff(laps))
    print(f"{positions:9,d} {peaks['RssAnon'] / 1024:10.0f} {peaks['VmRSS'] / 1024:10.0f} {seconds}{sums}", flush=True)


def plain(X: States, Y: States, folder: Path, lap: Lap) -> str:
    """Whiten, align in the clear, refine."""
    from sealign.alignment import RidgeStatistics, fit_ridge
    from sealign.encoders.causal import OutputHead
    from sealign.files import row_parts
    from sealign.generation.kl import refine_by_divergence
    from sealign.generation.whitening import Whitening
    from sealign.lab.evaluation.context import NAMES

    X = Whitening.fit(X).spilled(X, folder)
    lap()
    statistics = RidgeStatistics(*_PLAIN)
    for x, y in zip(row_parts(X), row_parts(Y), strict=True):
        statistics.update(x, y)
    ridge = fit_ridge(statistics, **NAMES)
    lap()
    weight = np.random.default_rng(1).standard_normal((_OUTPUTS, _PLAIN[1]), dtype=np.float32) / np.float32(24)
    refine_by_divergence(ridge, OutputHead(weight, None), X, Y, epochs=1)
    lap()
    return ""


def encrypted(X: States, Y: States, folder: Path, lap: Lap) -> str:
    """Multiply the client's encrypted rows by the silo's, block by block, and fit the map; return the sums' MiB."""
    from sealign.alignment import ScaledRows, fit_cross_covariance
    from sealign.ckks import Cipher, SecretKey, StreamedProduct, VerifiedRows, ZeroPool, candidates, product_shape
    from sealign.ckks.verification import CHECKS
    from sealign.defaults import ALIGNMENT_PRECISION
    from sealign.lab.evaluation.context import NAMES
    from sealign_server.serving.encrypted_alignment import centred_weights

    del folder
    source, weight = ScaledRows.of(X), centred_weights(Y)
    bias, precision = np.zeros(_ENCRYPTED[1]), ALIGNMENT_PRECISION * float(weight.norms.mean())
    plan = candidates(product_shape(weight, bias, rows=_ENCRYPTED[0] + CHECKS, precision=precision), streamed=True)[0]
    key = SecretKey.generate(plan.parameters)
    cipher, rows = Cipher(plan, key), VerifiedRows.of_columns(source.columns, source.gram, plan, key, bias)
    lap()
    product = StreamedProduct(plan, weight, ZeroPool(key.public_key))
    for block in cipher.encrypt_blocks(rows.columns):
        product.add(block)
    lap()
    parts, left = [], plan.rows
    for part in product.finish():
        parts.append(cipher.decrypt(part, min(left, plan.block.rows)))
        left -= plan.block.rows
    squared_norm = float(np.sum(weight.norms**2))
    fit_cross_covariance(source, rows.checked(np.concatenate(parts)), squared_norm, plan.error_std, **NAMES)
    lap()
    return f"{plan.cost.accumulator_bytes / (1 << 20):9.0f}"


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
        measure(sys.argv[2], int(sys.argv[3]))
    else:
        kind, *numbers = sys.argv[1:] or ["plain"]
        names = "states    ridge   refine" if kind == "plain" else "states  product      map     sums"
        print(f"positions  anonymous   resident   {names}   (MiB, seconds)", flush=True)
        for number in numbers or ["4000", "40000"]:
            subprocess.run([sys.executable, "-m", "tests.benchmarks.bench_positions", "one", kind, number], check=True)
