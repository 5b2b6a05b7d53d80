"""The client's process of the demo: align in both modes, classify through ciphertexts, write what it measured.

It holds the private texts and the client's model. It reads nothing of the silo's directory; what it
writes is for the report and would stay at the client.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter

import numpy as np

from deploy.demo.remembering import RememberingEncoder
from sealign.alignment import PublicSet
from sealign.app.progress import progress, transfer
from sealign.ckks import SecretKey
from sealign.encoders import EncoderSettings, load_encoder
from sealign.files import save_arrays, write_atomically
from sealign_client import Client, Timing, Transfer, client_settings

SINGLE_QUERIES = 500
_WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--public", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True, help="JSON list of texts")
    parser.add_argument("--outliers", type=Path, required=True, help="JSON object: lists of texts by their kind")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    settings, timings = client_settings(), list[Timing]()
    model = load_encoder(EncoderSettings.parse(str(settings.encoder)))
    encoder = RememberingEncoder(model)
    public = PublicSet.from_file(options.public)
    with Client(settings, encoder=encoder, observe=timings.append) as client:
        with progress("client: embedding public texts", len(public)) as advance:
            learned = client.align(public, advance)
        queries, outliers = (json.loads(path.read_bytes()) for path in (options.queries, options.outliers))
        with progress("client: embedding private texts", len(queries) + sum(map(len, outliers.values()))) as advance:
            query_rows = encoder.encode(queries, progress=advance)
            outlier_rows = {kind: encoder.encode(texts, progress=advance) for kind, texts in outliers.items()}
        embed_ms = []
        for text in queries[:100]:
            started = perf_counter()
            model.encode([text])
            embed_ms.append((perf_counter() - started) * 1e3)

        # Most documents one at a time, as an application would ask; the rest as one batch.
        singles = query_rows[:SINGLE_QUERIES]
        with progress("client: encrypted queries", len(query_rows) + sum(map(len, outlier_rows.values()))) as advance:
            logits = [client.logits(row[None], progress=advance) for row in singles]
            single_timings = timings[_WARM_UP : len(singles)]
            logits.append(client.logits(query_rows[SINGLE_QUERIES:], progress=advance))
            outlier_logits = {kind: client.logits(rows, progress=advance) for kind, rows in outlier_rows.items()}
        card = client.describe()
        plan = min(card.tasks[0].plans, key=lambda plan: plan.rows)

    # The same again without showing the silo any embedding: the map is learned under encryption and applied here. What
    # the silo is told about it fits the head.
    moved: list[Transfer] = []
    private = settings.model_copy(update={"map_directory": options.output / "client-maps", "tell_map": True})
    with Client(private, encoder=encoder) as client, transfer("client: encrypted alignment") as move:

        def observe(now: Transfer) -> None:
            moved.append(now)
            move(now.sent + now.received, now.total)

        started = perf_counter()
        client.align(public, mode="encrypted", transfer=observe)
        seconds = perf_counter() - started
        client_logits = client.logits(query_rows)

    save_arrays(
        options.output / "client.safetensors",
        {
            "query_rows": query_rows,
            "query_logits": np.concatenate(logits),
            **{f"outlier_logits.{kind}": logits for kind, logits in outlier_logits.items()},
            "client_placement_logits": client_logits,
        },
        {},
    )
    measured = {
        "labels": card.tasks[0].labels,
        "map": vars(learned),
        "plan": f"{plan.parameters.name}, block {plan.block.rows}x{plan.block.inner}x{plan.block.outputs}",
        "security_bits": plan.parameters.security_level(),
        "public_key_bytes": SecretKey.generate(plan.parameters).public_key.byte_count,
        "embed_ms": embed_ms,
        "timings": [vars(timing) for timing in single_timings],
        "encrypted_alignment": {
            "sent_bytes": moved[-1].sent,
            "received_bytes": moved[-1].received,
            "seconds": round(seconds, 1),
        },
    }
    write_atomically(options.output / "client.json", json.dumps(measured).encode())


if __name__ == "__main__":
    main()
