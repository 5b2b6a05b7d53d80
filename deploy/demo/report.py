"""The demo's report: what the client measured beside the silo's own model and the aligned model in the clear."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deploy.demo.data import LabelledText
from deploy.demo.silo import TASK
from sealign.app.progress import progress
from sealign.encoders import load_encoder
from sealign.files import load_arrays
from sealign.heads import auroc, fpr_at_95, max_logit
from sealign_server.serving.served_tasks import LoadedTask
from sealign_server.settings import ServingOptions
from sealign_server.store import SiloStore

Logits = NDArray[np.float64]


def make_report(work: Path, test: Sequence[LabelledText]) -> dict[str, Any]:
    """Return the figures, from what the client measured and from the silo's directory."""
    arrays, _ = load_arrays(work / "client.safetensors")
    measured = json.loads((work / "client.json").read_bytes())
    encrypted = arrays["query_logits"]
    outliers = {kind: arrays[f"outlier_logits.{kind}"] for kind in ("newswire", "books")}
    clear = _in_the_clear(work, measured, arrays["query_rows"], test)
    timings = measured["timings"]
    logits = {**clear, "encrypted": encrypted, "encrypted_client_placement": arrays["client_placement_logits"]}
    return {
        "accuracy": {name: _accuracy(found, measured["labels"], test) for name, found in logits.items()},
        "encrypted_alignment": measured["encrypted_alignment"],
        "agreement": round(float((clear["aligned"].argmax(axis=1) == encrypted.argmax(axis=1)).mean()), 4),
        "max_logit_error": float(np.abs(clear["aligned"] - encrypted).max()),
        # The largest logit is the margin by which the silo's fitted head decides what is in distribution.
        "ood": {kind: _separation(max_logit(encrypted), max_logit(found)) for kind, found in outliers.items()},
        "queries": len(encrypted) + sum(map(len, outliers.values())),
        "latency_ms": {
            "embed": _percentiles(measured["embed_ms"]),
            **{
                stage: _percentiles([timing[stage] for timing in timings])
                for stage in ("encrypt", "server", "decrypt", "round_trip")
            },
        },
        "bytes": {
            "request": timings[0]["request_bytes"],
            "reply": timings[0]["reply_bytes"],
            "public_key": measured["public_key_bytes"],
            "evaluation_keys": 0,
        },
    }


def _in_the_clear(
    work: Path, measured: dict[str, Any], rows: NDArray[np.float32], test: Sequence[LabelledText]
) -> dict[str, Logits]:
    """Return logits (n, 8) of the test documents: of the silo's own model, and behind the map with either head."""
    store = SiloStore(work / "silo")
    version = store.tasks.version(TASK)
    task = LoadedTask.load(TASK, str(version), store.tasks.load(TASK))
    learned = store.space.load_map(measured["identity"], measured["map"]["id"])
    own, served = task.stored.trained.head, task.behind(learned.channel, ServingOptions()).head
    mapped = learned.apply(rows)
    with progress("silo's own model on the test documents", len(test)) as advance:
        native = load_encoder(store.document.encoder).encode([row.text for row in test], progress=advance)
    return {
        "native": own.logits(native),
        "aligned_own_head": own.logits(mapped),
        "aligned": served.head.logits(mapped),
    }


def _accuracy(logits: Logits, labels: Sequence[str], test: Sequence[LabelledText]) -> float:
    answers = np.array(labels)[logits.argmax(axis=1)]
    return round(float((answers == np.array([row.label for row in test])).mean()), 4)


def _separation(inliers: Logits, outliers: Logits) -> dict[str, float]:
    return {"auroc": round(auroc(inliers, outliers), 4), "fpr95": round(fpr_at_95(inliers, outliers), 4)}


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{level}": round(float(np.percentile(values, level)), 3) for level in (50, 95)}


def print_report(report: dict[str, Any], measured: dict[str, Any]) -> None:
    """Print the figures as tables."""
    stages = Table("stage", "p50 ms", "p95 ms", title="One query, through TLS on loopback")
    for stage, times in report["latency_ms"].items():
        stages.add_row(stage.replace("_", " "), f"{times['p50']:.2f}", f"{times['p95']:.2f}")
    sizes = Table("", "bytes", title=f"Bytes ({measured['plan']}, {measured['security_bits']} bits of security)")
    for what, count in report["bytes"].items():
        sizes.add_row(what.replace("_", " "), f"{count:,}")
    moved = measured["encrypted_alignment"]
    sizes.add_row("alignment under encryption, up", f"{moved['sent_bytes']:,}")
    sizes.add_row("alignment under encryption, down", f"{moved['received_bytes']:,}")
    seen = Table("", "client", "silo", title="What each side saw")
    seen.add_row("private documents, their embeddings, their topics", "yes", "no")
    seen.add_row("embeddings of the public texts, by the client's model", "yes", "yes; under encryption: no")
    seen.add_row("the silo's documents, model, head and map", "no", "yes")
    seen.add_row("logits of the client's documents", "yes", "encrypted")
    console = Console()
    for table in (_results(report, measured), stages, sizes, seen):
        console.print(table)


def _results(report: dict[str, Any], measured: dict[str, Any]) -> Table:
    accuracy = report["accuracy"]
    results = Table("", "", title="Reuters R8, 8 topics", show_header=False)
    for what, name in {
        "accuracy, silo's own model (Google USE)": "native",
        "accuracy, client's model aligned, head trained on the silo's embeddings": "aligned_own_head",
        "accuracy, client's model aligned, head fitted to the map": "aligned",
        "the same, encrypted": "encrypted",
        "encrypted, aligned under encryption, map at the client": "encrypted_client_placement",
    }.items():
        results.add_row(what, f"{accuracy[name]:.4f}")
    results.add_row("same answer encrypted as in the clear", f"{report['agreement']:.4f}")
    results.add_row("largest error of a logit", f"{report['max_logit_error']:.5f}")
    for kind, name in {"newswire": "newswire on topics held back", "books": "excerpts of books"}.items():
        found = report["ood"][kind]
        results.add_row(f"{name} told apart: AUROC, FPR@95", f"{found['auroc']:.4f}, {found['fpr95']:.4f}")
    results.add_row("map: held-out explained variance", f"{measured['map']['explained_variance']:.4f}")
    return results
