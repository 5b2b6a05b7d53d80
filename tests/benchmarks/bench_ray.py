"""Bulk classification on Ray beside the encoder alone: MiniLM, texts of 250 characters at most, a real silo.

Usage: python -m tests.benchmarks.bench_ray [texts]

Prints processor time per text of the encoder alone and of a worker, and texts per second of one and two workers on a
Ray cluster of this machine once they have loaded their models. The silo has its task from the tests' corpus, and shares
the cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from deploy.demo.data import all_minilm
from sealign.encoders import Encoder, EncoderSettings, load_encoder
from sealign_client import Client, ClientSettings
from sealign_client.blocks import BlockClassifier, Job, iterate_blocks
from sealign_client.frames import client_of
from sealign_client.ray import classify_files, connected
from sealign_client.records import Columns, Format
from tests.benchmarks.bench_texts import text_silo
from tests.support.corpus import Corpus

BLOCK = 64


def job_of(file: Path, name: str, block: int) -> Job:
    """A job with an output of its own, begun."""
    job = Job((file,), Format.LINES, Columns(), file.with_name(name), block_rows=block)
    job.begin({})
    return job


def encoder_share(job: Job, settings: ClientSettings, encoder: Encoder) -> tuple[float, float]:
    """Return seconds of processor time per text of a worker, and of the encoder alone, block by block in turn."""
    classifier, whole, alone, count = BlockClassifier(job, settings), 0.0, 0.0, 0
    client_of(settings).classify(["a text that loads the model"])
    for block in iterate_blocks(job, 0):
        times = [time.process_time()]
        encoder.encode([record.text for record in block.records])
        times.append(time.process_time())
        classifier.done(block)
        times.append(time.process_time())
        alone, whole, count = alone + times[1] - times[0], whole + times[2] - times[1], count + len(block.records)
    client_of(settings).close()
    return whole / count, alone / count


def rate(job: Job, settings: ClientSettings, workers: int) -> float:
    """Return texts per second between the first block of each worker and the last."""
    classify_files(job, settings, workers=workers)
    times = sorted(path.stat().st_mtime for path in job.output.glob("part-*"))
    return BLOCK * (len(times) - workers) / (times[-1] - times[workers - 1])


def main(count: int) -> None:
    """Print the figures."""
    corpus = Corpus.load()
    texts = list(islice(cycle([item.text for item in corpus.train]), count))
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "texts.txt").write_text("\n".join(" ".join(text.split()) for text in texts) + "\n")
        with text_silo(work, corpus) as (silo, tls):
            settings = tls.client_settings(
                silo.port, encoder=f"transformers:{all_minilm()}?threads=1&device=cpu", map_directory=work / "maps"
            )
            with Client(settings) as client:
                client.align(corpus.public)
            encoder = load_encoder(EncoderSettings.parse(settings.encoder or ""))
            encoder.encode(texts[:8])
            whole, alone = encoder_share(job_of(work / "texts.txt", "here", 4 * BLOCK), settings, encoder)
            share = f"{alone / whole:.1%} of it is the encoder (target 95 %)"
            print(f"{count} texts, {os.cpu_count()} cores shared with the silo, load {os.getloadavg()[0]:.1f}")
            print(f"a worker {whole * 1e3:.2f} ms of processor time per text; {share}", flush=True)
            rates = {}
            for workers in (1, 2):
                with connected(workers):
                    rates[workers] = rate(job_of(work / "texts.txt", f"ray-{workers}", BLOCK), settings, workers)
            print(
                f"one worker {rates[1]:.1f} texts/s, two {rates[2]:.1f}: {rates[2] / rates[1]:.2f} times (target 1.7)"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
