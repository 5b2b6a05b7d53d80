"""Texts a second of SDK and daemon, each beside the encoder alone on the same cores, in one run.

Usage: python -m tests.benchmarks.bench_texts [texts]

MiniLM embeds texts of 250 characters at most; the silo has its task from the tests' corpus. The encoder alone is
measured before and after each way of classifying, in passes as large as that way allows.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter

from deploy.demo.data import all_minilm
from sealign.encoders import Encoder, EncoderSettings, load_encoder
from sealign_client import Client
from tests.support.certificates import Authority
from tests.support.corpus import Corpus
from tests.support.http_daemon import HttpDaemon, http_daemon
from tests.support.processes import Server, command, serving
from tests.support.silo import TASK, Tls

CALLERS = 32


@contextmanager
def text_silo(work: Path, corpus: Corpus) -> Iterator[tuple[Server, Tls]]:
    """A silo with one task, over mutual TLS."""
    authority = Authority(work)
    tls = Tls(authority, authority.issue("silo", "localhost", "127.0.0.1"), authority.issue("client", "client"))
    train, public = corpus.write(work)
    for arguments in (
        ("init", work / "silo", "--encoder", "use", "--public", public),
        ("train", work / "silo", "--task", TASK, "--data", train),
    ):
        made = command("sealign-server", *arguments)
        assert made.returncode == 0, made.stderr
    with serving("sealign-server", "serve", work / "silo", *tls.serve_options, log=work / "silo.log") as silo:
        yield silo, tls


def alone(encoder: Encoder, texts: Sequence[str], size: int) -> float:
    """Return texts a second of the encoder alone, in passes of one size."""
    started = perf_counter()
    for start in range(0, len(texts), size):
        encoder.encode(texts[start : start + size])
    return len(texts) / (perf_counter() - started)


def report(what: str, encoder: Encoder, texts: Sequence[str], size: int, run: Callable[[], object]) -> None:
    """Print how many texts a second a way of classifying does, and as a share of the encoder's."""
    before = alone(encoder, texts, size)
    started = perf_counter()
    run()
    rate = len(texts) / (perf_counter() - started)
    bound = (before + alone(encoder, texts, size)) / 2
    print(f"{len(texts)} texts, {what}: {rate:.1f}/s, encoder alone {bound:.1f}/s: {rate / bound:.0%} (target 90 %)")


def ask_daemon(daemon: HttpDaemon, texts: Sequence[str]) -> None:
    """Classify texts one by one, from many callers at once."""

    address = daemon.url.removeprefix("http://")
    headers = {"Authorization": f"Bearer {daemon.token}", "Content-Type": "application/json"}

    def ask(caller: int) -> None:
        connection = HTTPConnection(address, timeout=120)  # takes little processor time itself
        for text in texts[caller::CALLERS]:
            connection.request("POST", "/classify", json.dumps({"input": text}), headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()
        connection.close()

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(ask, range(CALLERS)))


def main(count: int) -> None:
    corpus, name = Corpus.load(), f"transformers:{all_minilm()}?long_texts=truncate&device=cpu"
    texts = [item.text for item in (*corpus.train, *corpus.queries)]
    texts = (texts * (count // len(texts) + 1))[:count]
    single, encoder = texts[: count // 4], load_encoder(EncoderSettings.parse(name))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as scratch, text_silo(Path(scratch), corpus) as (silo, tls):
        work = Path(scratch)
        settings = tls.client_settings(silo.port).model_copy(update={"map_directory": work / "maps"})
        with Client(settings, encoder=encoder) as client:
            client.align(corpus.public)
            client.classify(texts[:64])
            report("one call", encoder, texts, len(texts), lambda: client.classify(texts))
            report("a stream", encoder, texts, 64, lambda: list(client.classify_each(iter(texts))))
            report("one by one", encoder, single, 1, lambda: [client.classify(text) for text in single])
        with http_daemon(work / "daemon", tls, silo.port, name, "--map-directory", work / "maps") as daemon:
            daemon.wait_until_ready()
            ask_daemon(daemon, texts[:64])
            report(f"{CALLERS} callers of the daemon", encoder, texts, CALLERS, lambda: ask_daemon(daemon, texts))
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
