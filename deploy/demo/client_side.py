"""The client's process of the demo: align in both modes, classify through ciphertexts, write what it measured.

It holds the private texts and the client's model. It reads nothing of the silo's directory; what it
writes is for the report and would stay at the client.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.demo.remembering import RememberingEncoder
from sealign.alignment import PublicSet
from sealign.app.console import run
from sealign.app.progress import progress, transfer
from sealign.ckks import SecretKey
from sealign.encoders import EncoderSettings, load_encoder
from sealign.files import save_arrays, write_atomically
from sealign_client import Client, ClientSettings, Timing, Transfer, client_settings

SINGLE_QUERIES = 500
_WARM_UP = 20

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Texts:
    """What the client holds."""

    public: PublicSet
    queries: list[str]
    outliers: dict[str, list[str]]

    @property
    def private(self) -> int:
        return len(self.queries) + sum(map(len, self.outliers.values()))


def main() -> None:
    """Align, classify and write ``client.json`` and ``client.safetensors``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--public", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True, help="JSON list of texts")
    parser.add_argument("--outliers", type=Path, required=True, help="JSON object: lists of texts by their kind")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    queries, outliers = (json.loads(path.read_bytes()) for path in (options.queries, options.outliers))
    texts = _Texts(PublicSet.from_file(options.public), queries, outliers)

    settings = client_settings()
    model = load_encoder(EncoderSettings.parse(str(settings.encoder)))
    encoder = RememberingEncoder(model)
    arrays, measured = _aligned_plainly(settings, encoder, texts)
    measured["embed_ms"] = [_embedding_ms(model.encode, text) for text in queries[:100]]
    # The same again without showing the silo any embedding: the map is learned under encryption and applied here. What
    # the silo is told about it, two matrices over the public texts, fits the head.
    private = settings.model_copy(update={"map_directory": options.output / "client-maps"})
    arrays["client_placement_logits"], measured["encrypted_alignment"] = _aligned_under_encryption(
        private, encoder, texts, arrays["query_rows"]
    )
    save_arrays(options.output / "client.safetensors", arrays, {})
    write_atomically(options.output / "client.json", json.dumps(measured).encode())


def _aligned_plainly(
    settings: ClientSettings, encoder: RememberingEncoder, texts: _Texts
) -> tuple[Arrays, dict[str, Any]]:
    """Return logits of all texts through a map at the silo, and what was measured of it."""
    timings: list[Timing] = []
    with Client(settings, encoder=encoder, observe=timings.append) as client:
        with progress("client: embedding public texts", len(texts.public)) as advance:
            learned = client.align(texts.public, progress=advance)
        with progress("client: embedding private texts", texts.private) as advance:
            rows = encoder.encode(texts.queries, progress=advance)
            outlier_rows = {kind: encoder.encode(found, progress=advance) for kind, found in texts.outliers.items()}
        # Most documents one at a time, as an application would ask; the rest as one batch.
        with progress("client: encrypted queries", texts.private) as advance:
            logits = [client.logits(row[None], progress=advance) for row in rows[:SINGLE_QUERIES]]
            single_timings = timings[_WARM_UP : len(logits)]
            logits.append(client.logits(rows[SINGLE_QUERIES:], progress=advance))
            outliers = {
                f"outlier_logits.{kind}": client.logits(found, progress=advance) for kind, found in outlier_rows.items()
            }
        card = client.describe()
    plan = min(card.tasks[0].plans, key=lambda plan: plan.rows)
    measured = {
        "identity": card.silo.identity,
        "labels": card.tasks[0].labels,
        "map": asdict(learned),
        "plan": f"{plan.parameters.name}, block {plan.block.rows}x{plan.block.inner}x{plan.block.outputs}",
        "security_bits": plan.parameters.security_level(),
        "public_key_bytes": SecretKey.generate(plan.parameters).public_key.byte_count,
        "timings": [vars(timing) for timing in single_timings],
    }
    return {"query_rows": rows, "query_logits": np.concatenate(logits), **outliers}, measured


def _aligned_under_encryption(
    settings: ClientSettings, encoder: RememberingEncoder, texts: _Texts, rows: NDArray[np.float32]
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Return logits of rows that the client maps, and the bytes and seconds of the alignment."""
    moved: list[Transfer] = []
    with Client(settings, encoder=encoder) as client, transfer("client: encrypted alignment") as move:

        def observe(now: Transfer) -> None:
            moved.append(now)
            move(now.sent + now.received, now.total)

        started = perf_counter()
        client.align(texts.public, mode="encrypted", transfer=observe)
        seconds = round(perf_counter() - started, 1)
        logits = client.logits(rows)
    return logits, {"sent_bytes": moved[-1].sent, "received_bytes": moved[-1].received, "seconds": seconds}


def _embedding_ms(encode: Any, text: str) -> float:
    started = perf_counter()
    encode([text])
    return (perf_counter() - started) * 1e3


if __name__ == "__main__":
    run(main)
