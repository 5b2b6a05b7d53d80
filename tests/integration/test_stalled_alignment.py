"""A client that opens an alignment and then says nothing must not keep others from aligning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import grpc

from sealign.encoders import Encoder
from sealign.errors import UnavailableError
from sealign.protocol.conversions.types import encoder_to_wire
from sealign.protocol.v1 import alignment_pb2 as pb
from tests.support.corpus import Corpus
from tests.support.processes import serving
from tests.support.silo import Tls
from tests.support.wire import Embeddings, raw_stubs, refused


def test_a_silent_client_is_given_up(
    aligned_copy: Path, tls: Tls, encoder: Encoder, corpus: Corpus, public_rows: Embeddings, tmp_path: Path
) -> None:
    options = (*tls.serve_options, "--alignment-seconds", "1")
    header = pb.AlignmentHeader(
        space="embeddings",
        encoder=encoder_to_wire(encoder.card),
        public_set=corpus.public.digest,
        rows=len(corpus.public),
    )
    over = Event()

    def silent() -> Iterator[pb.AlignRequest]:
        yield pb.AlignRequest(header=header)
        over.wait(60)

    with (
        serving("sealign-server", "serve", aligned_copy, *options, log=tmp_path / "silo.log") as silo,
        raw_stubs(silo.address, tls.authority, tls.client) as stubs,
    ):
        with refused(grpc.StatusCode.UNAVAILABLE, UnavailableError, "1 s"):
            stubs.alignment.Align(silent(), timeout=60)
        over.set()
        rows = pb.EmbeddingRows(values=public_rows.tobytes())
        parts = [pb.AlignRequest(header=header), pb.AlignRequest(rows=rows)]
        assert stubs.alignment.Align(iter(parts), timeout=60).map.rows == len(public_rows)
