"""Mutated messages at the decoders of both sides, and at a silo that serves.

Usage: python -m tests.load.fuzz [messages at the decoders] [messages at the service] [seed]

A decoder returns, or raises an error of Sealign's that says what the peer did. The service answers each message within
its deadline, with any status but INTERNAL and UNKNOWN. Neither grows by more than 20 MB. With the package `atheris`,
`python -m tests.load.fuzz_atheris` covers the decoders guided by coverage.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from sealign.alignment import MapCovariances
from sealign.ckks import DEFAULT_PRECISION
from sealign.errors import MachineError, SealignError
from sealign.protocol import AlignmentRequest, MapCard
from sealign.protocol.conversions.alignment import covariances_to_wire, request_to_wire
from sealign.protocol.conversions.types import public_key_to_wire
from sealign.protocol.v1 import alignment_pb2, classification_pb2, generation_pb2, silo_pb2
from tests.load.decoders import Decoder, decoders
from tests.load.mutation import Mutator
from tests.support.certificates import Authority
from tests.support.processes import Server, serving
from tests.support.silo import ClearModel, Tls, align_plain, space_of
from tests.support.smallsilo import PUBLIC, SILO_DIMENSION, client_encoder, make_silo
from tests.support.wire import RawClient, raw_channel, raw_stubs

GROWTH = 20e6
"""Bytes."""
SLOW_SECONDS = 2.0
"""Processor time for one message beyond which a decoder counts as hung."""
DEADLINE = 30.0
_UNDER_WAY, _CHANNELS, _WARM_UP = 16, 4, 10_000


@dataclass
class Outcome:
    """What became of mutated messages.

    Attributes:
        messages: sent.
        ends: how often each end was seen.
        faults: what must not happen, with the message that did it.
        growth: of resident memory, bytes.
        seconds: taken.
    """

    messages: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    growth: float = 0.0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.faults and self.growth < GROWTH

    def row(self, what: str, target: str) -> str:
        """Return a row of the table."""
        ends = ", ".join(f"{name} {count}" for name, count in self.ends.most_common(5))
        verdict = "met" if self.is_good else "MISSED"
        return (
            f"| {what} | {target} | {self.messages} in {self.seconds:.0f} s, {len(self.faults)} faults, memory "
            f"{self.growth / 1e6:+.1f} MB ({ends}) | {verdict} |"
        )


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def decode(decoder: Decoder, raw: bytes) -> str:
    """Decode a message, and return how that ended.

    Raises:
        Exception: what no message may cause.
    """
    try:
        decoder.decode(raw)
    except MachineError:
        raise
    except SealignError as error:
        return error.code
    return "decoded"


def fuzz_decoders(messages: int, seed: int) -> Outcome:
    """Mutate messages of every kind in turn."""
    known = decoders()
    mutator = Mutator([decoder.message for decoder in known], seed)
    for decoder in known:
        assert decode(decoder, decoder.message) == "decoded", decoder.name
    outcome, before, began = Outcome(), 0, time.monotonic()
    for number in range(messages):
        if number == min(messages // 4, _WARM_UP):
            gc.collect()
            before = resident_bytes()
        decoder = known[number % len(known)]
        raw = mutator.mutated(decoder.message)
        started = time.process_time()
        try:
            end = decode(decoder, raw)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            end = "fault"
            outcome.faults.append(f"{decoder.name}: {type(error).__name__}: {error} of {raw[:200].hex()}")
        if time.process_time() - started > SLOW_SECONDS:
            outcome.faults.append(f"{decoder.name}: took {time.process_time() - started:.1f} s, {raw[:200].hex()}")
        outcome.ends[end] += 1
    gc.collect()
    outcome.messages, outcome.growth = messages, resident_bytes() - before
    outcome.seconds = time.monotonic() - began
    return outcome


def requests(raw: RawClient, row: Any, public: int) -> dict[str, list[bytes]]:
    """Return real messages by the path of their method; of a stream, one after the other."""
    card = client_encoder().card
    query = raw.request(row, with_key=True)
    header = request_to_wire(AlignmentRequest("embeddings", card, PUBLIC.digest, public))
    key = public_key_to_wire(raw.cipher.key.public_key)
    rows = client_encoder().encode(PUBLIC.texts[:200]).tobytes()
    encrypted = alignment_pb2.AlignEncryptedRequest
    block = alignment_pb2.InnerBlock(index=0, rows=query.query)
    square = np.eye(SILO_DIMENSION, dtype=np.float32)
    registered = MapCovariances(square, square)
    calls: dict[str, list[Message]] = {
        "Silo/Describe": [silo_pb2.DescribeRequest()],
        "Alignment/DescribeSpace": [
            alignment_pb2.DescribeSpaceRequest(space="embeddings", encoder=card.fingerprint, dimension=24)
        ],
        "Alignment/SharedExamples": [
            alignment_pb2.SharedExamplesRequest(space="embeddings", task="colours", public_set=PUBLIC.digest)
        ],
        "Alignment/RegisterMap": [covariances_to_wire(registered, "embeddings", card.fingerprint, PUBLIC.digest)],
        "Alignment/Align": [
            alignment_pb2.AlignRequest(header=header),
            alignment_pb2.AlignRequest(rows=alignment_pb2.EmbeddingRows(values=rows)),
        ],
        "Alignment/AlignEncrypted": [
            encrypted(header=alignment_pb2.AlignEncryptedHeader(alignment=header, key=key, check_rows=24)),
            encrypted(block=block),
        ],
        "Classification/DescribeTasks": [classification_pb2.DescribeTasksRequest(rows=query.rows)],
        "Classification/Classify": [query],
        "Classification/ClassifyStream": [query, query],
        "Generation/DescribeGeneration": [generation_pb2.DescribeGenerationRequest(task="x", rows=query.rows)],
        "Generation/FetchTokenizer": [generation_pb2.FetchTokenizerRequest(task="x")],
        "Generation/NextToken": [
            generation_pb2.NextTokenRequest(task="x", revision="r", rows=query.rows, query=query.query, key=query.key)
        ],
    }
    return {f"/sealign.v1.{path}": [m.SerializeToString() for m in sent] for path, sent in calls.items()}


def fuzz_service(silo: Server, tls: Tls, raw: RawClient, row: Any, messages: int, seed: int) -> Outcome:
    """Send mutated messages to a silo, several at a time; gRPC's own parts are as they should be."""
    calls = requests(raw, row, len(PUBLIC))
    mutator = Mutator([message for sent in calls.values() for message in sent], seed)
    drawn, outcome = random.Random(seed), Outcome()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_UNDER_WAY))
        channels = [stack.enter_context(raw_channel(silo.address, tls.authority, tls.client)) for _ in range(_CHANNELS)]
        under_way: dict[Future[str], tuple[str, list[bytes]]] = {}
        before, began = 0, time.monotonic()
        while outcome.messages < messages or under_way:
            while outcome.messages < messages and len(under_way) < _UNDER_WAY:
                if outcome.messages >= min(messages // 4, _WARM_UP) and not before:
                    before = silo.resident_bytes
                path = drawn.choice(list(calls))
                sent = [mutator.mutated(m) if drawn.random() < 0.7 else m for m in calls[path]]
                channel: Any = channels[outcome.messages % _CHANNELS]
                call = channel.stream_unary(path) if path.endswith("/Align") else channel.stream_stream(path)
                under_way[pool.submit(_code, call, sent)] = path, sent
                outcome.messages += len(sent)
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                path, sent = under_way.pop(future)
                code = future.result()
                outcome.ends[code] += 1
                if code in ("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED"):
                    outcome.faults.append(f"{path}: {code} of {[message[:200].hex() for message in sent]}")
        outcome.growth, outcome.seconds = silo.resident_bytes - before, time.monotonic() - began
    outcome.faults += [f"the log says {event}" for event in silo.events("internal error")]
    return outcome


def _code(call: Any, sent: Sequence[bytes]) -> str:
    try:
        replies = call(iter(sent), timeout=DEADLINE)
        if not isinstance(replies, bytes):
            for _ in replies:
                pass
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def at_a_silo(directory: Path, messages: int, seed: int) -> Outcome:
    """Start a silo, fuzz it, and see that it answers as before."""
    authority = Authority(directory)
    tls = Tls(authority, authority.issue("silo", "localhost", "127.0.0.1"), authority.issue("client", "client"))
    encoder, store = client_encoder(), make_silo(directory / "silo", calibrated=True)
    learned = align_plain(
        space_of(store), tls.client.subject, encoder.card, PUBLIC.digest, encoder.encode(PUBLIC.texts)
    ).card
    # Room for more maps than a run makes, since the one that good queries use must not be evicted. Small caches, so
    # that what grows is no cache.
    options = (*tls.serve_options, "--max-maps", 100_000, "--max-maps-per-day", 100_000, "--alignment-seconds", 5)
    options += ("--max-heads-mb", 16, "--max-keys-mb", 1)
    with (
        serving("sealign-server", "serve", store.directory, *options, log=directory / "log") as silo,
        raw_stubs(silo.address, tls.authority, tls.client) as stubs,
    ):
        clear = _clear(directory / "silo", tls, learned)
        raw, row = RawClient.meet(stubs, clear.rows), encoder.encode(["a text"])
        outcome = fuzz_service(silo, tls, raw, row, messages, seed)
        outputs = raw.outputs(raw.send(raw.request(row, with_key=True)))
        if np.abs(outputs - clear.outputs(row)).max() > DEFAULT_PRECISION:
            outcome.faults.append("the silo answers a good query wrongly")
        if not silo.is_running:
            outcome.faults.append("the silo has ended")
    return outcome


def _clear(directory: Path, tls: Tls, learned: MapCard) -> ClearModel:
    clear = ClearModel.load(directory, tls.client, client_encoder().card.fingerprint, "colours")
    assert clear.map.id == learned.id
    return clear


def main(at_decoders: int, at_service: int, seed: int) -> int:
    """Print the table, and return the exit status."""
    print("| fuzzing | target | measured | |\n| --- | --- | --- | --- |")
    outcomes = [fuzz_decoders(at_decoders, seed)]
    print(outcomes[0].row("decoders", "1,000,000: no crash, hang or other error; under 20 MB"), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        outcomes.append(at_a_silo(Path(scratch), at_service, seed))
    print(outcomes[1].row("a silo that serves", "50,000: no INTERNAL, UNKNOWN or silence; under 20 MB"))
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    for fault in faults[:20]:
        print(fault)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    raise SystemExit(main(*(numbers + [1_000_000, 50_000, 1][len(numbers) :])))
