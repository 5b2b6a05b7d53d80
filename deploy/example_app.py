"""An application that has texts classified: it knows the client's daemon and nothing of the silo.

All it needs is gRPC and the contract ``proto/sealign/v1/daemon.proto``, in any language.
Reads a table with the columns ``label`` and ``text``, tab-separated, and compares the answers with the labels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from sealign.protocol.v1.daemon_pb2 import ClassifyTextsRequest, ListTasksRequest
from sealign.protocol.v1.daemon_pb2_grpc import DaemonStub


def batches(rows: list[list[str]], size: int) -> Iterator[list[list[str]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify labelled texts through a Sealign daemon.")
    parser.add_argument("texts", type=Path, help="TSV with header label<TAB>text")
    parser.add_argument("--daemon", default="localhost:7450", help="HOST:PORT of the daemon")
    parser.add_argument("--token-file", type=Path, required=True, help="the daemon's token file")
    parser.add_argument("--task", required=True)
    parser.add_argument("--batch", type=int, default=32, help="texts a request")
    parser.add_argument("--minimum-accuracy", type=float, default=0.0, help="fail if below")
    options = parser.parse_args()

    lines = options.texts.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    rows = [line.split("\t", 1) for line in lines[1:]]
    token = (("authorization", f"Bearer {options.token_file.read_text().strip()}"),)
    with grpc.insecure_channel(options.daemon) as channel:
        daemon = DaemonStub(channel)
        tasks = {task.name: task for task in daemon.ListTasks(ListTasksRequest(), timeout=30, metadata=token).tasks}
        if options.task not in tasks or not tasks[options.task].ready:
            sys.exit(f"task {options.task} is not ready; the daemon offers: {', '.join(tasks)}")
        right = flagged = 0
        started = time.perf_counter()
        for batch in batches(rows, options.batch):
            request = ClassifyTextsRequest(task=options.task, texts=[text for _, text in batch])
            answers = daemon.ClassifyTexts(request, timeout=120, metadata=token).classifications
            if len(answers) != len(batch):
                sys.exit(f"{len(answers)} answers to {len(batch)} texts")
            right += sum(answer.label == label for answer, (label, _) in zip(answers, batch, strict=True))
            flagged += sum(answer.HasField("in_distribution") and not answer.in_distribution for answer in answers)
    seconds = time.perf_counter() - started

    accuracy = right / len(rows)
    print(f"texts                   {len(rows)}")
    print(f"accuracy                {accuracy:.3f}")
    print(f"out of distribution     {flagged}")
    print(f"milliseconds a text     {1000 * seconds / len(rows):.1f}")
    if accuracy < options.minimum_accuracy:
        sys.exit(f"accuracy {accuracy:.3f} is below {options.minimum_accuracy}")


if __name__ == "__main__":
    main()
