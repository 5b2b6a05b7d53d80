"""A client of two silos, in one process: each has its own task, encoder, certificates and map.

    python two_silos.py newswire=texts.tsv reviews=reviews.tsv

A silo's name is that of its host, and of the folder of its certificates. Each table has the columns ``label`` and
``text``, tab-separated. Prints each text with the silo's label, and a sum at the end of the table. With ``--pause`` it
goes on with one text at a time. While one silo is away this says so and tries again; the other goes on meanwhile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TypeVar

from sealign.alignment import PublicSet
from sealign.errors import SealignError
from sealign_client import Client

_RETRY_SECONDS = 1.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class Options:
    """What all silos have in common.

    Attributes:
        pause: seconds between texts after the table; None to end with it.
    """

    encoder: str
    public: Path
    certificates: Path
    maps: Path
    pause: float | None


def main() -> None:
    """Use each silo in a thread of its own, so that none waits for another."""
    parser = argparse.ArgumentParser(description="Have two silos classify texts of one client.")
    parser.add_argument("tables", nargs="+", metavar="SILO=TABLE")
    parser.add_argument("--encoder", default="transformers:/demo/minilm?long_texts=truncate&threads=1")
    parser.add_argument("--public", type=Path, default=Path("/demo/public.txt"))
    parser.add_argument("--certificates", type=Path, default=Path("/tls"))
    parser.add_argument("--maps", type=Path, default=Path("/client"))
    parser.add_argument("--pause", type=float, help="go on, one text every so many seconds")
    given = vars(parser.parse_args())
    tables = [table.partition("=") for table in given.pop("tables")]
    with ThreadPoolExecutor(len(tables)) as pool:
        working = [pool.submit(use, silo, Path(table), Options(**given)) for silo, _, table in tables]
        for work in working:
            work.result()


def use(silo: str, table: Path, options: Options) -> None:
    """Align with a silo if need be, and have it classify a table."""
    rows = [line.split("\t", 1) for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    files = options.certificates / silo
    with Client(
        silo=f"{silo}:7443",
        encoder=options.encoder,
        tls_ca=files / "ca.pem",
        tls_cert=files / "client.pem",
        tls_key=files / "client.key",
        map_directory=options.maps / silo,
        timeout=15,
    ) as client:

        def align() -> None:
            (task,) = client.describe(refresh=True).tasks
            if not task.plans:
                client.align(PublicSet.from_file(options.public))

        def label(text: str) -> str:
            found = _patiently(silo, lambda: client.classify(text).label)
            print(f"{silo:<10} {found:<10} {text[:80]}", flush=True)
            return found

        _patiently(silo, align)
        right = sum(label(text) == expected for expected, text in rows)
        print(f"{silo}: {right} of {len(rows)} labels are those of the table", flush=True)
        if options.pause is not None:
            for _, text in cycle(rows):
                time.sleep(options.pause)
                label(text)


def _patiently(silo: str, ask: Callable[[], _T]) -> _T:
    """Return what a silo answers, however long it takes; print why there is no answer yet."""
    while True:
        try:
            return ask()
        except SealignError as error:  # noqa: PERF203 - as it is asked again
            print(f"{silo:<10} no answer  {error}", flush=True)
            time.sleep(_RETRY_SECONDS)


if __name__ == "__main__":
    main()
