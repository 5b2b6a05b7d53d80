"""Clients that want the silo's memory, threads, slots or patience: each gets a bounded part, others are served."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event

import grpc
import numpy as np
import pytest

from sealign.ckks import Cipher, SecretKey
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, UnavailableError
from sealign.protocol import AlignmentRequest, ClientMap, RowKind
from sealign.protocol.conversions.alignment import request_to_wire
from sealign.protocol.status import error_of
from sealign.protocol.v1 import alignment_pb2 as pb
from sealign.protocol.v1 import classification_pb2
from sealign_client.retry import TRANSIENT
from tests.support.processes import Server, serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, SILO_DIMENSION, client_encoder, make_silo
from tests.support.wire import RawClient, Stubs, raw_stubs, refused

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
ROWS = RowKind("a" * 64, ClientMap(PUBLIC.digest))
QUERY = np.eye(1, SILO_DIMENSION, dtype=np.float32)


@dataclass(frozen=True)
class Attacked:
    """A silo, an attacker and another client."""

    server: Server
    attacker: Stubs
    other: RawClient
    another: Stubs
    tls: Tls


@pytest.fixture(scope="module")
def attacked(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    directory = tmp_path_factory.mktemp("attacked")
    store = make_silo(directory / "silo")
    options = (*tls.serve_options, "--max-streams", "4", "--alignment-seconds", "2", "--idle-seconds", "2")
    options += ("--max-keys-mb", "4", "--message-seconds", "8")
    with ExitStack() as stack:
        server = stack.enter_context(
            serving("sealign-server", "serve", store.directory, *options, log=directory / "log")
        )
        names = [tls.authority.issue(name, name) for name in ("attacker", "other")]
        attacker, other = (stack.enter_context(raw_stubs(server.address, tls.authority, name)) for name in names)
        yield Attacked(server, attacker, RawClient.meet(other, ROWS), other, tls)


@pytest.fixture(autouse=True)
def _others_are_served(attacked: Attacked) -> Iterator[None]:
    yield
    assert attacked.server.is_running
    attacked.other.outputs(attacked.other.send(attacked.other.request(QUERY)))
    assert not attacked.server.events("internal error")


def header(dimension: int) -> pb.AlignRequest:
    card = EncoderCard(name="large", dimension=dimension, fingerprint="c" * 64)
    return pb.AlignRequest(header=request_to_wire(AlignmentRequest("embeddings", card, PUBLIC.digest, len(PUBLIC))))


def test_an_alignment_of_8192_dimensions_takes_no_memory(attacked: Attacked) -> None:
    """34 MB of rows made the old silo take 3 GB."""
    before = attacked.server.resident_bytes
    rows = pb.AlignRequest(rows=pb.EmbeddingRows(values=bytes(4 * 8192 * 100)))
    with refused(INVALID, InvalidInputError, "the silo gives 1024 MiB to alignments"):
        attacked.attacker.alignment.Align(iter([header(8192), *[rows] * 10]), timeout=60)
    assert attacked.server.resident_bytes - before < 50e6


def test_a_message_of_millions_of_empty_ciphertexts(attacked: Attacked) -> None:
    """40 s of CPU in the event loop and 3.3 GB resident, in the old silo."""
    flood = b"\x1a\x00" * 15_000_000
    length, value = b"", len(flood)
    while value >= 0x80:
        length, value = length + bytes([value & 0x7F | 0x80]), value >> 7
    raw = b"\x22" + length + bytes([value]) + flood
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = attacked.attacker.channel.unary_unary(
        "/sealign.v1.Classification/Classify"
    )
    before, started = attacked.server.resident_bytes, time.process_time()
    with refused(INVALID, InvalidInputError, "too many parts"):
        call(raw, timeout=60)
    assert attacked.server.resident_bytes - before < 150e6
    record = [event for event in attacked.server.events("call") if event["code"] == "INVALID_INPUT"][-1]
    assert record["ms"] < 5000
    assert time.process_time() - started < 5


def test_a_client_that_is_slow_to_align_keeps_nobody_from_aligning(attacked: Attacked) -> None:
    """One row every few seconds held the old silo's only slot for days."""
    over = Event()

    def slow() -> Iterator[pb.AlignRequest]:
        yield header(8)
        for _ in range(100):
            yield pb.AlignRequest(rows=pb.EmbeddingRows(values=QUERY[:, :8].tobytes()))
            if over.wait(0.5):
                return

    encoder = client_encoder()
    request = AlignmentRequest("embeddings", encoder.card, PUBLIC.digest, len(PUBLIC))
    parts = [
        pb.AlignRequest(header=request_to_wire(request)),
        pb.AlignRequest(rows=pb.EmbeddingRows(values=encoder.encode(PUBLIC.texts).tobytes())),
    ]
    attack = attacked.attacker.alignment.Align.future(slow(), timeout=60)
    time.sleep(0.5)
    assert attacked.another.alignment.Align(iter(parts), timeout=60).map.rows == len(PUBLIC)
    with refused(grpc.StatusCode.UNAVAILABLE, UnavailableError, "took more than 2 s"):
        attack.result()
    over.set()


def test_silent_streams_are_few_and_end(attacked: Attacked) -> None:
    over = Event()

    def silent() -> Iterator[classification_pb2.ClassifyRequest]:
        over.wait(60)
        return
        yield

    streams = [attacked.attacker.classification.ClassifyStream(silent(), timeout=60) for _ in range(7)]
    ended = []
    for stream in streams:
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        ended.append(caught.value.code())
    over.set()
    assert ended.count(EXHAUSTED) == 3
    assert ended.count(grpc.StatusCode.UNAVAILABLE) == 4


def test_a_request_that_never_comes_is_given_up(attacked: Attacked) -> None:
    over = Event()

    def never() -> Iterator[bytes]:
        over.wait(60)
        return
        yield

    call: grpc.StreamUnaryMultiCallable[bytes, bytes] = attacked.attacker.channel.stream_unary(
        "/sealign.v1.Classification/Classify"
    )
    with refused(grpc.StatusCode.UNAVAILABLE, UnavailableError, "sent nothing"):
        call(never(), timeout=60)
    over.set()


def test_many_keys_evict_nobody_elses(attacked: Attacked) -> None:
    """1,024 keys of one client used to evict everybody's; here four megabytes are shared, fairly."""
    raw = RawClient.meet(attacked.attacker, ROWS)
    for _ in range(40):
        cipher = Cipher(raw.plan, SecretKey.generate(raw.plan.parameters))
        flood = RawClient(attacked.attacker, ROWS, raw.task, cipher)
        flood.send(flood.request(QUERY, with_key=True))
    attacked.other.send(attacked.other.request(QUERY))  # without its key


def test_a_reader_that_does_not_read_holds_no_room(attacked: Attacked) -> None:
    """It used to hold an admission slot for ever."""
    raw = RawClient.meet(attacked.attacker, ROWS, batch=1024)
    request = raw.request(np.tile(QUERY, (1024, 1)))
    streams = [attacked.attacker.classification.ClassifyStream(iter([request] * 200), timeout=60) for _ in range(4)]
    for stream in streams:
        next(stream)
    time.sleep(1.0)
    bulk = RawClient.meet(attacked.another, ROWS, batch=1024)
    bulk.send(bulk.request(np.tile(QUERY, (1024, 1))))
    for stream in streams:
        stream.cancel()


def test_more_queries_than_there_is_room_for_are_refused_so_that_clients_ask_again(attacked: Attacked) -> None:
    """The old silo queued them all. Those that Python has not taken, gRPC's core refuses."""
    identity = attacked.tls.authority.issue("flood", "flood")
    with ExitStack() as stack:
        floods = [
            RawClient.meet(
                stack.enter_context(raw_stubs(attacked.server.address, attacked.tls.authority, identity)), ROWS
            )
            for _ in range(4)
        ]
        requests = [(raw.stubs.classification, raw.request(QUERY, with_key=True)) for raw in floods]
        calls = [stub.Classify.future(request, timeout=60) for stub, request in requests * 100]
        refusals = [call for call in calls if call.code() is not grpc.StatusCode.OK]
        assert 0 < len(refusals) < len(calls)
        for call in refusals:
            assert isinstance(error_of(call, "the silo"), TRANSIENT), call.details()
