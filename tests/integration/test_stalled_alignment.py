"""A client that opens an alignment and then says nothing must not keep others from aligning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import grpc
import pytest

from sealign.encoders import Encoder
from sealign.protocol.conversions import encoder_to_wire
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloStub
from sealign_client import Client
from tests.support.corpus import Corpus
from tests.support.processes import serving
from tests.support.silo import Tls
from tests.support.wire import raw_channel


def test_a_silent_client_is_given_up(
    aligned_copy: Path, tls: Tls, encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    options = (*tls.serve_options, "--listen", "127.0.0.1:0", "--alignment-seconds", "1")
    header = pb.AlignHeader(
        encoder=encoder_to_wire(encoder.card), public_set=corpus.public.digest, rows=len(corpus.public)
    )
    over = Event()

    def silent() -> Iterator[pb.AlignRequest]:
        yield pb.AlignRequest(header=header)
        over.wait(60)

    with (
        serving("sealign-server", "serve", aligned_copy, *options, log=tmp_path / "silo.log") as silo,
        raw_channel(silo.address, tls.authority, tls.client) as channel,
        Client(tls.client_settings(silo.port), encoder=encoder) as client,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            SiloStub(channel).Align(silent(), timeout=60)
        over.set()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "sent nothing for 1 s" in str(caught.value.details())
        client.align(corpus.public)
