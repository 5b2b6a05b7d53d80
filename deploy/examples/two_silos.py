"""A client of two silos, in one process: each has its own task, encoder, certificates and map.

    python two_silos.py newswire=texts.tsv reviews=reviews.tsv

A silo's name is that of its host, and of the folder of its certificates. Each table has the columns ``label`` and
``text``, tab-separated. Prints each text with the silo's label.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sealign.alignment import PublicSet
from sealign.encoders import EncoderSettings, load_encoder
from sealign_client import Client


def main() -> None:
    """Align with each silo, and have it classify its table."""
    parser = argparse.ArgumentParser(description="Have two silos classify texts of one client.")
    parser.add_argument("tables", nargs="+", metavar="SILO=TABLE")
    parser.add_argument("--encoder", default="transformers:/demo/minilm?long_texts=truncate")
    parser.add_argument("--public", type=Path, default=Path("/demo/public.txt"))
    parser.add_argument("--certificates", type=Path, default=Path("/tls"))
    parser.add_argument("--maps", type=Path, default=Path("/client"))
    options = parser.parse_args()

    encoder = load_encoder(EncoderSettings.parse(options.encoder))  # once for both silos
    public = PublicSet.from_file(options.public)
    for argument in options.tables:
        silo, _, table = argument.partition("=")
        rows = [line.split("\t", 1) for line in Path(table).read_text(encoding="utf-8").splitlines()[1:]]
        files = options.certificates / silo
        with Client(
            silo=f"{silo}:7443",
            encoder=encoder,
            tls_ca=files / "ca.pem",
            tls_cert=files / "client.pem",
            tls_key=files / "client.key",
            map_directory=options.maps / silo,
        ) as client:
            (task,) = client.describe().tasks
            if not task.plans:
                client.align(public)
            results = client.classify([text for _, text in rows])
        for result, (_, text) in zip(results, rows, strict=True):
            print(f"{silo:<10} {result.label:<10} {text[:80]}", flush=True)
        right = sum(result.label == label for result, (label, _) in zip(results, rows, strict=True))
        print(f"{silo}: {right} of {len(rows)} labels are those of the table", flush=True)


if __name__ == "__main__":
    main()
