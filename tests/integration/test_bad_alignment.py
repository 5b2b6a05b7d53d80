"""Alignments that cannot be right: refused with one status, and the earlier map stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from time import sleep

import grpc
import numpy as np
import pytest

from sealign.alignment import PublicSet
from sealign.encoders import Encoder
from sealign.errors import InvalidInputError, NotFoundError, OverloadedError
from sealign.protocol.conversions.types import encoder_to_wire
from sealign.protocol.v1 import alignment_pb2 as pb
from sealign.protocol.v1.alignment_pb2_grpc import AlignmentStub
from tests.support.corpus import Corpus
from tests.support.wire import Embeddings, Stubs, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(autouse=True)
def _map_stays(silo_directory: Path, still_serves: None) -> Iterator[None]:
    """Maps, and nothing but maps, are where they were."""
    path = silo_directory / "space" / "maps"
    before = {file: file.read_bytes() for file in path.rglob("*.*")}
    yield
    assert {file: file.read_bytes() for file in path.rglob("*.*")} == before


@pytest.fixture
def stub(stubs: Stubs) -> AlignmentStub:
    return stubs.alignment


@pytest.fixture
def header(encoder: Encoder, corpus: Corpus) -> pb.AlignmentHeader:
    return pb.AlignmentHeader(
        space="embeddings",
        encoder=encoder_to_wire(encoder.card),
        public_set=corpus.public.digest,
        rows=len(corpus.public),
    )


def align(stub: AlignmentStub, *parts: pb.AlignmentHeader | bytes) -> pb.AlignReply:
    """Send parts in their order."""
    requests = [
        pb.AlignRequest(rows=pb.EmbeddingRows(values=part)) if isinstance(part, bytes) else pb.AlignRequest(header=part)
        for part in parts
    ]
    return stub.Align(iter(requests), timeout=60)


def test_public_set_that_the_silo_does_not_hold(
    stub: AlignmentStub, header: pb.AlignmentHeader, corpus: Corpus
) -> None:
    other = PublicSet((*corpus.public.texts[1:], "one line differs"))
    header.public_set = other.digest
    with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "it holds: public ("):
        align(stub, header)
    for digest in ("", "../silo", "0" * 100_000):
        header.public_set = digest
        with refused(INVALID, InvalidInputError, "must be a SHA-256 digest"):
            align(stub, header)


@pytest.mark.parametrize("space", ["", "embedding", "generation/", "generation/..", "generation/none", "x" * 200])
def test_a_space_that_is_not_there(stub: AlignmentStub, header: pb.AlignmentHeader, space: str) -> None:
    header.space = space
    with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "here"):
        align(stub, header)


@pytest.mark.parametrize("rows", [0, 1, 299, 301, 2**32 - 1])
def test_other_number_of_texts(stub: AlignmentStub, header: pb.AlignmentHeader, rows: int) -> None:
    header.rows = rows
    with refused(INVALID, InvalidInputError, f"300 rows, the client announces {rows}"):
        align(stub, header)


def test_stream_that_ends_early(stub: AlignmentStub, header: pb.AlignmentHeader, public_rows: Embeddings) -> None:
    with refused(INVALID, InvalidInputError, "ended after 299 of 300 rows; nothing was learned"):
        align(stub, header, public_rows[:-1].tobytes())
    with refused(INVALID, InvalidInputError, "ended after 0 of 300 rows"):
        align(stub, header)


def test_more_rows_than_announced(stub: AlignmentStub, header: pb.AlignmentHeader, public_rows: Embeddings) -> None:
    with refused(INVALID, InvalidInputError, "more than the 300 rows"):
        align(stub, header, public_rows.tobytes(), public_rows[:1].tobytes())


def test_missing_or_repeated_header(stub: AlignmentStub, header: pb.AlignmentHeader, public_rows: Embeddings) -> None:
    with refused(INVALID, InvalidInputError, "must begin with a header"):
        align(stub, public_rows.tobytes())
    with refused(INVALID, InvalidInputError, "must begin with a header"):
        align(stub)
    with refused(INVALID, InvalidInputError, "not whole rows"):
        align(stub, header, header)


@pytest.mark.parametrize("values", [b"", b"\0", bytes(4 * 384 - 1), bytes(4 * 384 + 4)])
def test_bytes_that_are_not_whole_rows(stub: AlignmentStub, header: pb.AlignmentHeader, values: bytes) -> None:
    with refused(INVALID, InvalidInputError, "not whole rows of 384 float32 values"):
        align(stub, header, values)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(
    stub: AlignmentStub, header: pb.AlignmentHeader, public_rows: Embeddings, value: float
) -> None:
    rows = public_rows.copy()
    rows[17, 3] = value
    with refused(INVALID, InvalidInputError, "not finite"):
        align(stub, header, rows.tobytes())


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0, 1e20])
def test_rows_that_are_not_normalised(
    stub: AlignmentStub, header: pb.AlignmentHeader, public_rows: Embeddings, factor: float
) -> None:
    with refused(INVALID, InvalidInputError, "not L2-normalised"):
        align(stub, header, (public_rows * np.float32(factor)).tobytes())


def test_encoder_that_does_not_normalise(stub: AlignmentStub, header: pb.AlignmentHeader) -> None:
    header.encoder.normalised = False
    with refused(INVALID, InvalidInputError, "set normalise=true"):
        align(stub, header)


@pytest.mark.parametrize("fingerprint", ["", "abc", "../" * 20 + "abcd", "F" * 64, "0" * 64 + "\n"])
def test_bad_fingerprints_name_no_file(stub: AlignmentStub, header: pb.AlignmentHeader, fingerprint: str) -> None:
    header.encoder.fingerprint = fingerprint
    with refused(INVALID, InvalidInputError, "the encoder card is incomplete"):
        align(stub, header)


def test_no_dimension(stub: AlignmentStub, header: pb.AlignmentHeader) -> None:
    header.encoder.dimension = 0
    with refused(INVALID, InvalidInputError, "the encoder card is incomplete"):
        align(stub, header)


@pytest.mark.parametrize("dimension", [8193, 20_000, 2**32 - 1])
def test_dimensions_that_would_exhaust_memory(stub: AlignmentStub, header: pb.AlignmentHeader, dimension: int) -> None:
    header.encoder.dimension = dimension
    with refused(INVALID, InvalidInputError, f"not {dimension}"):
        align(stub, header)


def test_rows_all_the_same(stub: AlignmentStub, header: pb.AlignmentHeader, public_rows: Embeddings) -> None:
    with refused(INVALID, InvalidInputError, "all the same"):
        align(stub, header, np.tile(public_rows[:1], (300, 1)).tobytes())


@pytest.mark.parametrize("dimension", [6000, 8192])
def test_memory_is_declared_before_it_is_taken(stub: AlignmentStub, header: pb.AlignmentHeader, dimension: int) -> None:
    header.encoder.dimension = dimension
    with refused(INVALID, InvalidInputError, "the silo gives 1024 MiB to alignments"):
        align(stub, header)


def test_one_alignment_of_a_client_at_a_time(stub: AlignmentStub, header: pb.AlignmentHeader) -> None:
    """The first, when it goes away, makes room."""
    parts: Queue[pb.AlignRequest] = Queue()
    parts.put(pb.AlignRequest(header=header))
    first = stub.Align.future(iter(parts.get, None), timeout=60)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, OverloadedError, "is aligning already"):
        align_until_not(INVALID, stub, header)  # the first holds its place once its header has arrived
    first.cancel()
    parts.put(pb.AlignRequest())  # lets the thread that feeds the call end
    with refused(INVALID, InvalidInputError, "not whole rows"):
        align_until_not(grpc.StatusCode.RESOURCE_EXHAUSTED, stub, header)


def align_until_not(status: grpc.StatusCode, stub: AlignmentStub, header: pb.AlignmentHeader) -> None:
    """Send half a row again and again, until the refusal has another status."""
    for _ in range(100):
        try:
            align(stub, header, b"x")
        except grpc.RpcError as error:
            if error.code() != status:
                raise
        sleep(0.05)
