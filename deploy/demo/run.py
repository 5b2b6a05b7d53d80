"""The demo: ``make demo``. A silo and a client, as separate processes over TLS on loopback.

The silo trains a topic classifier for Reuters R8 on Google USE embeddings. The client's model is
all-MiniLM-L6-v2. They align over public text that is not R8 (newswire on other topics,
newsgroup posts, movie reviews); then the client classifies R8 test documents, which the silo never
sees, and outliers through ciphertexts. Then they align once more under encryption, and the client applies the map
itself. Prints a report and writes ``demo-output/report.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from time import perf_counter, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deploy.demo.data import LabelledText, all_minilm, book_excerpts, foreign_newswire, public_texts, reuters_r8
from sealign.app.progress import progress
from sealign.encoders import load_encoder
from sealign.errors import SealignError, UnavailableError
from sealign.files import load_arrays, write_atomically
from sealign.heads import auroc, fpr_at_95, max_logit
from sealign_server.served_task import LoadedTask
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore

OUTPUT = Path("demo-output")
PUBLIC_TEXTS = 4000
FOREIGN = 500
TASK = "r8"

_console = Console()
_BIN = Path(sys.executable).parent


def main() -> None:
    """Run the demo and write the report."""
    started = perf_counter()
    work = OUTPUT / "work"
    rmtree(work, ignore_errors=True)
    test = reuters_r8("test")
    _write_inputs(work, test)

    _step("silo: embeds the public texts and trains its head on Reuters R8 with its own model (Google USE)")
    _command(
        "sealign-server", "init", work / "silo", "--encoder", "use?long_texts=truncate", "--public", work / "public.txt"
    )
    about = "topics of Reuters newswire"
    _command(
        "sealign-server", "train", work / "silo", "--task", TASK, "--data", work / "train.tsv", "--description", about
    )
    _command("sealign-server", "certificates", work / "tls", "--host", "localhost")

    _step("silo: serves; client (another process): aligns over public text, plainly and under encryption, and asks")
    with _silo(work) as address:
        client = {
            "SEALIGN_SILO": address,
            "SEALIGN_ENCODER": f"transformers:{(work / 'all-MiniLM-L6-v2').resolve()}",
            "SEALIGN_TLS_CA": str(work / "tls" / "ca.pem"),
            "SEALIGN_TLS_CERT": str(work / "tls" / "client.pem"),
            "SEALIGN_TLS_KEY": str(work / "tls" / "client.key"),
        }
        files = [
            *("--public", work / "public.txt"),
            *("--queries", work / "queries.json"),
            *("--outliers", work / "outliers.json"),
            *("--output", work),
        ]
        _checked([sys.executable, "-m", "deploy.demo.client_side", *map(str, files)], client)

    _step("report: compares with the silo's own model and with the aligned model in the clear")
    report = _report(work, test)
    write_atomically(OUTPUT / "report.json", json.dumps(report, indent=2).encode())
    _print(report, json.loads((work / "client.json").read_bytes()))
    _console.print(f"wrote {OUTPUT / 'report.json'}; the demo took {perf_counter() - started:.0f} s")


def _write_inputs(work: Path, test: Sequence[LabelledText]) -> None:
    train = "".join(f"{row.label}\t{row.text}\n" for row in reuters_r8("train"))
    write_atomically(work / "train.tsv", f"label\ttext\n{train}".encode())
    write_atomically(work / "public.txt", "".join(f"{text}\n" for text in public_texts(PUBLIC_TEXTS)).encode())
    write_atomically(work / "queries.json", json.dumps([row.text for row in test]).encode())
    outliers = {"newswire": foreign_newswire(FOREIGN), "books": book_excerpts()}
    write_atomically(work / "outliers.json", json.dumps(outliers).encode())
    (work / "all-MiniLM-L6-v2").symlink_to(all_minilm())


def _report(work: Path, test: Sequence[LabelledText]) -> dict[str, Any]:
    """The figures, from what the client measured and from the silo's directory."""
    arrays, _ = load_arrays(work / "client.safetensors")
    measured = json.loads((work / "client.json").read_bytes())
    store = SiloStore(work / "silo")
    task, learned = LoadedTask.load(store, TASK), store.load_map(store.map_fingerprints()[0])
    trained, served = task.trained, task.behind(learned.channel, ServeSettings(tls_cert=work, tls_key=work)).head
    mapped = learned.apply(arrays["query_rows"])
    with progress("silo's own model on the test documents", len(test)) as advance:
        own = load_encoder(store.document.encoder).encode([row.text for row in test], progress=advance)

    labels = np.array(trained.head.labels)
    truth = np.array([row.label for row in test])

    def accuracy(logits: NDArray[np.float64]) -> float:
        return round(float((labels[logits.argmax(axis=1)] == truth).mean()), 4)

    clear = served.head.logits(mapped)
    encrypted = arrays["query_logits"]
    # The largest logit is the margin by which the silo's fitted head decides what is in distribution.
    inliers = max_logit(encrypted)
    foreign = {kind: max_logit(arrays[f"outlier_logits.{kind}"]) for kind in ("newswire", "books")}
    timings = measured["timings"]
    return {
        "accuracy": {
            "native": accuracy(trained.head.logits(own)),
            "aligned_own_head": accuracy(trained.head.logits(mapped)),
            "aligned": accuracy(clear),
            "encrypted": accuracy(encrypted),
            "encrypted_client_placement": accuracy(arrays["client_placement_logits"]),
        },
        "encrypted_alignment": measured["encrypted_alignment"],
        "agreement": round(float((clear.argmax(axis=1) == encrypted.argmax(axis=1)).mean()), 4),
        "max_logit_error": float(np.abs(clear - encrypted).max()),
        "ood": {
            kind: {"auroc": round(auroc(inliers, scores), 4), "fpr95": round(fpr_at_95(inliers, scores), 4)}
            for kind, scores in foreign.items()
        },
        "queries": len(encrypted) + sum(map(len, foreign.values())),
        "latency_ms": {
            "embed": _percentiles(measured["embed_ms"]),
            **{stage: _percentiles([t[stage] for t in timings]) for stage in ("encrypt", "server", "decrypt")},
            "round_trip": _percentiles([t["round_trip"] for t in timings]),
        },
        "bytes": {
            "request": timings[0]["request_bytes"],
            "reply": timings[0]["reply_bytes"],
            "public_key": measured["public_key_bytes"],
            "evaluation_keys": 0,
        },
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{level}": round(float(np.percentile(values, level)), 3) for level in (50, 95)}


def _print(report: dict[str, Any], measured: dict[str, Any]) -> None:
    accuracy, ood = report["accuracy"], report["ood"]
    results = Table("", "", title="Reuters R8, 8 topics", show_header=False)
    results.add_row("accuracy, silo's own model (Google USE)", f"{accuracy['native']:.4f}")
    own = f"{accuracy['aligned_own_head']:.4f}"
    results.add_row("accuracy, client's model aligned, head trained on the silo's embeddings", own)
    results.add_row("accuracy, client's model aligned, head fitted to the map", f"{accuracy['aligned']:.4f}")
    results.add_row("the same, encrypted", f"{accuracy['encrypted']:.4f}")
    placed = f"{accuracy['encrypted_client_placement']:.4f}"
    results.add_row("encrypted, aligned under encryption, map at the client", placed)
    results.add_row("same answer encrypted as in the clear", f"{report['agreement']:.4f}")
    results.add_row("largest error of a logit", f"{report['max_logit_error']:.5f}")
    for kind, name in {"newswire": "newswire on topics held back", "books": "excerpts of books"}.items():
        results.add_row(f"{name} told apart: AUROC, FPR@95", f"{ood[kind]['auroc']:.4f}, {ood[kind]['fpr95']:.4f}")
    results.add_row("map: held-out explained variance", f"{measured['map']['explained_variance']:.4f}")
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
    for table in (results, stages, sizes, seen):
        _console.print(table)


def _step(what: str) -> None:
    _console.print(f"[bold]{what}[/bold]")


def _command(program: str, *arguments: object) -> None:
    _checked([str(_BIN / program), *map(str, arguments)], {})


def _checked(command: list[str], environment: dict[str, str]) -> None:
    if subprocess.run(command, env={**os.environ, **environment}, check=False).returncode:
        raise SealignError(f"this step failed, see above: {' '.join(command[:2])}")


@contextmanager
def _silo(work: Path) -> Iterator[str]:
    """The silo's process; yields its address and ends it."""
    tls = work / "tls"
    command = [_BIN / "sealign-server", "serve", work / "silo", "--listen", "127.0.0.1:0"]
    command += ["--tls-cert", tls / "silo.pem", "--tls-key", tls / "silo.key", "--tls-client-ca", tls / "ca.pem"]
    log = work / "silo.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([str(part) for part in command], stderr=stream)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the silo listens, by its own log."""
    deadline = perf_counter() + 60
    while perf_counter() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "serving":
                return f"localhost:{event['address'].rpartition(':')[2]}"
        sleep(0.1)
    raise UnavailableError(f"the silo did not start; see {log}")


if __name__ == "__main__":
    main()
