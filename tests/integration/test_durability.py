"""Full disks, killed processes, restarts, changes under way: what was there stays, and clients recover."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import grpc
import numpy as np
import pytest

from sealign.ckks import DEFAULT_PRECISION
from sealign.encoders import Encoder
from sealign.errors import PeerFailedError
from sealign.heads import train_head
from sealign.protocol import EMBEDDINGS, AlignmentRequest
from sealign.protocol.conversions.alignment import request_to_wire
from sealign.protocol.conversions.types import rows_to_wire
from sealign.protocol.v1 import alignment_pb2 as pb
from sealign.protocol.v1 import classification_pb2
from sealign_client import Client
from sealign_server.store import SiloStore, StoredTask
from tests.support.corpus import Corpus
from tests.support.processes import Server
from tests.support.silo import TASK, ClearModel, Tls, assert_right, own_silo
from tests.support.wire import Embeddings, raw_stubs


def map_files(directory: Path) -> dict[str, bytes]:
    """Maps and what belongs to them; heads that were fitted to them come and go."""
    maps = directory / "space" / "maps"
    files = [path for path in maps.rglob("*") if path.is_file() and "_heads" not in path.parts]
    return {str(path.relative_to(maps)): path.read_bytes() for path in files}


def codes(silo: Server) -> set[str]:
    """Codes of the calls that the silo has answered with an error."""
    return {event["code"] for event in silo.events("call")} - {"OK"}


def align_in_vain(client: Client, corpus: Corpus, silo: Server, why: str) -> None:
    """The client hears an id, and the silo's log has the reason under it."""
    with pytest.raises(PeerFailedError, match="under id") as caught:
        client.align(corpus.public)
    assert "/" not in str(caught.value)
    reasons = {event["id"]: event["reason"] for event in silo.events("internal error")}
    (reason,) = (reason for incident, reason in reasons.items() if incident in str(caught.value))
    assert why in reason


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(mount)], check=False)
    if made.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_full_disk(
    small_disk: Path,
    aligned_directory: Path,
    tls: Tls,
    encoder: Encoder,
    corpus: Corpus,
    query_rows: Embeddings,
    tmp_path: Path,
) -> None:
    directory = Path(shutil.copytree(aligned_directory, small_disk / "silo"))
    before = map_files(directory)
    with own_silo(directory, tls, encoder, tmp_path / "log") as (silo, client):
        assert_right(client, directory, query_rows[:2], tls.client)
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        (small_disk / "filler").write_bytes(bytes(free - 100_000))
        align_in_vain(client, corpus, silo, "")
        assert map_files(directory) == before
        assert_right(client, directory, query_rows[:2], tls.client)
        (small_disk / "filler").unlink()
        client.align(corpus.public)
        after = map_files(directory)
        assert after.keys() >= before.keys()
        assert len(after) - len(before) in (0, 2)  # the same map has the same name; rounding makes another
        assert_right(client, directory, query_rows[:2], tls.client)


def test_file_size_limit(
    aligned_copy: Path, tls: Tls, encoder: Encoder, corpus: Corpus, query_rows: Embeddings, tmp_path: Path
) -> None:
    """The same without the right to mount: the map does not fit under the process's limit."""
    before = map_files(aligned_copy)
    with own_silo(aligned_copy, tls, encoder, tmp_path / "log") as (silo, client):
        assert_right(client, aligned_copy, query_rows[:2], tls.client)
        resource.prlimit(silo.process.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        align_in_vain(client, corpus, silo, "File too large")
        assert map_files(aligned_copy) == before
        assert_right(client, aligned_copy, query_rows[:2], tls.client)
        assert silo.is_running


def test_silo_killed_during_alignment_and_restarted_under_a_client(
    aligned_copy: Path,
    tls: Tls,
    encoder: Encoder,
    corpus: Corpus,
    public_rows: Embeddings,
    query_rows: Embeddings,
    tmp_path: Path,
) -> None:
    before = map_files(aligned_copy)
    asked = AlignmentRequest(EMBEDDINGS, encoder.card, corpus.public.digest, len(public_rows))
    parts: Queue[pb.AlignRequest | None] = Queue()
    parts.put(pb.AlignRequest(header=request_to_wire(asked)))
    parts.put(pb.AlignRequest(rows=pb.EmbeddingRows(values=public_rows[:150].tobytes())))
    with own_silo(aligned_copy, tls, encoder, tmp_path / "first.log") as (first, client):
        assert_right(client, aligned_copy, query_rows[:2], tls.client)
        with raw_stubs(first.address, tls.authority, tls.client) as stubs:
            alignment = stubs.alignment.Align.future(iter(parts.get, None), timeout=60)
            first.end(signal.SIGKILL)
            with pytest.raises(grpc.RpcError):
                alignment.result()
            parts.put(None)
        # As a kill between writing and renaming leaves it.
        owner = next(path for path in (aligned_copy / "space" / "maps").iterdir() if path.is_dir())
        leftover = owner / f".{'0' * 32}.safetensors.0123456789ab.tmp"
        leftover.write_bytes(b"half a map")
        with own_silo(aligned_copy, tls, encoder, tmp_path / "second.log", port=first.port) as (second, _):
            assert map_files(aligned_copy).items() >= before.items()
            assert_right(client, aligned_copy, query_rows[:2], tls.client)  # connects again, sends its key again
            assert codes(second) <= {"UNKNOWN_KEY", "STALE_PLAN"}
            client.align(corpus.public)
            assert_right(client, aligned_copy, query_rows, tls.client)


def test_new_head_while_clients_hold_the_old_plan(
    aligned_copy: Path, tls: Tls, encoder: Encoder, query_rows: Embeddings, tmp_path: Path
) -> None:
    with own_silo(aligned_copy, tls, encoder, tmp_path / "log") as (silo, client):
        assert_right(client, aligned_copy, query_rows[:2], tls.client)
        old = client.describe().tasks[0]
        _train_another_head(aligned_copy)
        with Client(tls.client_settings(silo.port), encoder=encoder) as other:
            new = other.describe().tasks[0]  # the silo looks at its directory again
        assert new.revision != old.revision
        assert client.describe().tasks[0] == old
        assert_right(client, aligned_copy, query_rows[:2], tls.client)
        assert client.describe().tasks[0] == new
        assert codes(silo) == {"STALE_PLAN"}


def test_answers_of_two_heads_never_mix(
    aligned_copy: Path, tls: Tls, encoder: Encoder, query_rows: Embeddings, tmp_path: Path
) -> None:
    """A head changes in the middle of a bulk file: all rows get the one or all get the other."""
    rows = np.tile(query_rows, (400, 1))
    fingerprint = encoder.card.fingerprint
    old = ClearModel.load(aligned_copy, tls.client, fingerprint)
    with own_silo(aligned_copy, tls, encoder, tmp_path / "log") as (silo, client):
        done: list[int] = []

        def change(count: int) -> None:
            if not done:
                _train_another_head(aligned_copy)
                with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
                    request = classification_pb2.DescribeTasksRequest(rows=rows_to_wire(old.rows))
                    stubs.classification.DescribeTasks(request, timeout=30)
            done.append(count)

        logits = client.logits(rows, progress=change)
        new = ClearModel.load(aligned_copy, tls.client, fingerprint)
        (expected,) = [m for m in (old, new) if len(m.labels) == logits.shape[1]]
        assert np.abs(logits - expected.logits(rows)).max() <= DEFAULT_PRECISION
        assert codes(silo) == {"STALE_PLAN"}  # the head did change under way


def _train_another_head(directory: Path) -> None:
    """Three classes at random points of the silo's space."""
    store = SiloStore(directory)
    generator = np.random.default_rng(1)
    points = np.repeat(generator.normal(size=(3, store.document.encoder_card.dimension)), 20, axis=0)
    rows = points + generator.normal(size=points.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    store.tasks.save(TASK, StoredTask(train_head(rows, [label for label in "abc" for _ in range(20)])))
