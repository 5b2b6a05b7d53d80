"""The gRPC service in one process: overload, and errors that must not say too much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from sealign.ckks import Cipher, SecretKey, SecurityTable
from sealign.encoders import EncoderCard
from sealign.protocol import QueryRows
from sealign.protocol.conversions import matrix_to_wire, public_key_to_wire
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloStub, add_SiloServicer_to_server
from sealign_server.public_keys import PublicKeyCache
from sealign_server.service import SiloService
from sealign_server.settings import ServeSettings
from sealign_server.silo import Silo
from sealign_server.store import SiloStore
from tests.unit.server.conftest import CLIENT_DIMENSION, unit_rows


@asynccontextmanager
async def served(silo: Silo, max_concurrent: int = 1) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    service = SiloService(silo, PublicKeyCache(8, 0), SecurityTable.CLASSICAL, max_concurrent)
    add_SiloServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield SiloStub(channel)
    finally:
        await server.stop(None)


async def test_more_products_than_allowed_are_refused_not_queued(
    aligned: SiloStore, settings: ServeSettings, client_card: EncoderCard
) -> None:
    silo = Silo(aligned, settings.model_copy(update={"batch_rows": (4096,)}))  # long enough to overlap
    (task,) = silo.describe(QueryRows(client_card.fingerprint)).tasks
    (plan,) = task.plans
    key = SecretKey.generate(plan.parameters)
    query = matrix_to_wire(Cipher(plan, key).encrypt(unit_rows(5, 4096, CLIENT_DIMENSION)))
    request = pb.ClassifyRequest(task="colours", encoder=client_card.fingerprint, query=query, revision=task.revision)
    async with served(silo) as stub:
        await stub.RegisterKey(pb.RegisterKeyRequest(key=public_key_to_wire(key.public_key)))
        answers = await asyncio.gather(*(stub.Classify(request) for _ in range(8)), return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert 1 <= len(refusals) < len(answers)
        for refusal in refusals:
            trailers = dict(refusal.trailing_metadata() or ())
            assert refusal.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert trailers["sealign-error"] == "OverloadedError"
            assert int(trailers["grpc-retry-pushback-ms"]) > 0
        assert await stub.Classify(request)  # there is room again


async def test_unforeseen_errors_do_not_quote_data(
    aligned: SiloStore, settings: ServeSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silo = Silo(aligned, settings)

    def fail(*_: str) -> None:
        raise ValueError("a secret: 0.123456")

    monkeypatch.setattr(silo, "describe", fail)
    async with served(silo) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Describe(pb.DescribeRequest())
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error (ValueError); the log has it"
    captured = capsys.readouterr()
    assert "secret" not in captured.out + captured.err
