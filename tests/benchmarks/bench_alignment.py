"""Encrypted alignment between real processes over TLS on loopback: silo's compute, bytes, memory, error of the map.

Usage: python -m tests.benchmarks.bench_alignment [texts]

Embeddings are synthetic, so that no model is needed: noisy views of shared meanings whose variances fall about as
those of sentence encoders do. One silo process of one worker and one client process for each pair of dimensions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil  # type: ignore[import-untyped]

from sealign.alignment import AffineMap, PublicSet, RidgeStatistics, fit_ridge
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.encoders.encoder import Embeddings
from sealign.protocol import PublicSetCard
from sealign_client import Client, ClientSettings, Transfer
from sealign_server.store import PublicRows, SiloDocument, SiloStore
from tests.support.processes import Server, command, environment, serving

PAIRS = ((384, 512), (768, 768))
TEXTS = 4000
_MEANINGS, _DECAY, _SHARED = 600, 0.8, 0.6


def views(texts: int, *dimensions: int) -> list[Embeddings]:
    """Embeddings of the same meanings by encoders of these dimensions, shape (texts, d), rows of norm one.

    The variance of dimension k falls as k^-0.8; 60 % of it is shared, the mean has norm 0.3 or so.
    """
    generator = np.random.default_rng(0)
    spectrum = np.arange(1, _MEANINGS + 1) ** (-_DECAY / 2)
    spectrum /= np.linalg.norm(spectrum)
    meanings = generator.standard_normal((texts, _MEANINGS)) * spectrum
    found = []
    for dimension in dimensions:
        own = generator.standard_normal((texts, _MEANINGS)) * spectrum
        mixed = np.sqrt(_SHARED) * meanings + np.sqrt(1 - _SHARED) * own
        directions = np.linalg.qr(generator.standard_normal((max(_MEANINGS, dimension),) * 2))[0]
        rows = mixed @ directions[:_MEANINGS, :dimension]
        rows += 0.3 * np.linalg.norm(rows, axis=1).mean() * directions[0, :dimension]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found.append(rows.astype(np.float32))
    return found


def public_set(texts: int) -> PublicSet:
    return PublicSet(tuple(f"text {number}" for number in range(texts)))


def card(name: str, dimension: int, digit: str) -> EncoderCard:
    return EncoderCard(name=name, dimension=dimension, fingerprint=digit * 64)


class StoredEncoder:
    """Stands for an encoder whose embeddings exist already."""

    def __init__(self, rows: Embeddings) -> None:
        self.card = card("client", rows.shape[1], "0")
        self._rows = rows

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        if progress is not None:
            progress(len(texts))
        return self._rows


def align(work: Path, port: int) -> None:
    """The client's process: align, and say what it took."""
    seen: list[Transfer] = []
    rows = np.load(work / "client.npy")
    tls = work / "tls"
    settings = ClientSettings(
        silo=f"localhost:{port}",
        tls_ca=tls / "ca.pem",
        tls_cert=tls / "client.pem",
        tls_key=tls / "client.key",
        map_directory=work / "maps",
    )
    with Client(settings, encoder=StoredEncoder(rows)) as client:
        started = perf_counter()
        learned = client.align(public_set(len(rows)), mode="encrypted", transfer=seen.append)
        seconds = perf_counter() - started
    cpu = psutil.Process().cpu_times()
    measured = {
        "penalty": learned.penalty,
        "explained_variance": learned.explained_variance,
        "sent": seen[-1].sent,
        "received": seen[-1].received,
        "seconds": seconds,
        "cpu_seconds": cpu.user + cpu.system,
        "peak_bytes": peak_bytes(psutil.Process().pid),
    }
    print(json.dumps(measured))


def peak_bytes(pid: int) -> int:
    """Largest resident size that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024


def cpu_seconds(silo: Server) -> float:
    times = psutil.Process(silo.process.pid).cpu_times()
    return float(times.user + times.system)


def measure(texts: int, client_dimension: int, silo_dimension: int) -> None:
    """Align one pair and print a line."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        ours, theirs = views(texts, client_dimension, silo_dimension)
        np.save(work / "client.npy", ours)
        silo_card = card("silo", silo_dimension, "1")
        document = SiloDocument(name="benchmark", encoder=EncoderSettings(), encoder_card=silo_card)
        store = SiloStore.create(work / "silo", document)
        digest = public_set(texts).digest
        store.space.save_public_set(PublicRows(PublicSetCard(digest, texts, "synthetic"), theirs))
        assert command("sealign-server", "certificates", work / "tls", "--host", "localhost").returncode == 0
        files = ("--tls-cert", work / "tls" / "silo.pem", "--tls-key", work / "tls" / "silo.key")
        arguments = (
            "serve",
            store.directory,
            "--listen",
            "127.0.0.1:0",
            *files,
            "--tls-client-ca",
            work / "tls" / "ca.pem",
        )
        with serving("sealign-server", *arguments, log=work / "silo.log") as silo:
            before = cpu_seconds(silo)
            client = [sys.executable, "-m", "tests.benchmarks.bench_alignment", "--client", str(work), str(silo.port)]
            ran = subprocess.run(client, env=environment(), check=True, stdout=subprocess.PIPE)
            measured = json.loads(ran.stdout)
            compute, peak = cpu_seconds(silo) - before, peak_bytes(silo.process.pid)
        statistics = RidgeStatistics(client_dimension, silo_dimension)
        statistics.update(ours, theirs)
        names = {"source_fingerprint": "0" * 64, "target_fingerprint": "1" * 64, "public_set": digest}
        clear = fit_ridge(statistics, [measured["penalty"]], **names).weight
        own = AffineMap.load(next((work / "maps").glob("*.safetensors"))).weight
    error = np.linalg.norm(own - clear) / np.linalg.norm(clear)
    print(
        f"{texts:6d} {client_dimension:6d} {silo_dimension:6d} {compute:9.1f} {measured['cpu_seconds']:11.1f} "
        f"{measured['seconds']:7.1f} {measured['sent'] / 1e6:8.1f} {measured['received'] / 1e6:8.1f} "
        f"{peak / 1e6:9.0f} {measured['peak_bytes'] / 1e6:11.0f} {error:10.1e} {measured['explained_variance']:8.3f}",
        flush=True,
    )


def main(texts: int) -> None:
    print(
        "texts, dimensions of client and silo, CPU seconds of each, seconds in all, MB up and down, peak resident MB,"
    )
    print("relative Frobenius error of the map against the clear ridge at the same penalty, explained variance")
    print(
        "     n client   silo  silo CPU  client CPU       s    MB up  MB down   silo MB   client MB      error    expl."
    )
    for client_dimension, silo_dimension in PAIRS:
        measure(texts, client_dimension, silo_dimension)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        align(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else TEXTS)
